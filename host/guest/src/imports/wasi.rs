//! WASI 0.2 for components whose tool chain imports it: it links, and gives nothing away.
//!
//! Clocks and random come from the attempt's `Env`, standard output and error become log lines, and
//! all of these pass the state. There are no files, no environment, no arguments; sockets are refused.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{
    WasiCtx, WasiCtxView, WasiView, async_trait,
    p2::{
        self, DynOutputStream, DynPollable, OutputStream, Pollable, StreamError, StreamResult,
        bindings::{
            cli::{stderr, stdout},
            clocks::{monotonic_clock, wall_clock},
            random::{insecure, insecure_seed, random},
        },
        subscribe,
    },
};

use super::{
    Call, HostState,
    limits::{HANDLES, RANDOM_BYTES, Stop},
    log::{Log, Stdio},
};

/// Bytes that a stream takes in one write.
const WRITE: usize = 64 << 10;

/// What wasmtime-wasi keeps for an instance; made at the first call that needs it, since most guests in
/// Rust make none.
#[derive(Default)]
pub(super) struct Wasi(Option<Box<(WasiCtx, ResourceTable)>>);

impl Wasi {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.get().1
    }

    fn get(&mut self) -> &mut (WasiCtx, ResourceTable) {
        self.0.get_or_insert_with(|| {
            let mut table = ResourceTable::new();
            table.set_max_capacity(HANDLES);
            let ctx = WasiCtx::builder().allow_tcp(false).allow_udp(false).max_random_size(0).build();
            Box::new((ctx, table))
        })
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (ctx, table) = self.wasi.get();
        WasiCtxView { ctx, table }
    }
}

/// Offers all of WASI 0.2 to guests.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    p2::add_to_linker_async(linker)?;
    // What has to pass the state stands in front of wasmtime's own.
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    monotonic_clock::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    random::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    insecure::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    insecure_seed::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    stdout::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    stderr::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl wall_clock::Host for HostState {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = self.pass(Call::Clock, |state| Ok::<_, Stop>(state.context.env.now()))?;
        let nanoseconds = u128::try_from(now.as_nanosecond()).unwrap_or_default();
        Ok(wall_clock::Datetime {
            seconds: (nanoseconds / 1_000_000_000) as u64,
            nanoseconds: (nanoseconds % 1_000_000_000) as u32,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1 })
    }
}

impl monotonic_clock::Host for HostState {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        let since = self.pass(Call::Clock, |state| Ok::<_, Stop>(state.born.elapsed()))?;
        Ok(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Duration> {
        Ok(1)
    }

    fn subscribe_instant(
        &mut self,
        when: monotonic_clock::Instant,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let due = self.born.checked_add(Duration::from_nanos(when));
        self.alarm(due)
    }

    fn subscribe_duration(
        &mut self,
        when: monotonic_clock::Duration,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let due = std::time::Instant::now().checked_add(Duration::from_nanos(when));
        self.alarm(due)
    }
}

impl HostState {
    fn alarm(&mut self, due: Option<std::time::Instant>) -> wasmtime::Result<Resource<DynPollable>> {
        let alarm = self.wasi.table().push(Alarm(due.map(Instant::from_std)))?;
        subscribe(self.wasi.table(), alarm)
    }

    fn random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        Ok(self.pass(Call::Random, |state| {
            if len > RANDOM_BYTES {
                return Err(Stop::bytes("random_bytes", RANDOM_BYTES as usize));
            }
            let mut bytes = vec![0; len as usize];
            state.context.env.fill(&mut bytes);
            Ok(bytes)
        })?)
    }

    fn random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.pass(Call::Random, |state| Ok::<_, Stop>(state.context.env.random_u64()))?)
    }

    fn stdio(&mut self, stdio: Stdio) -> wasmtime::Result<Resource<DynOutputStream>> {
        let log = self.pass(Call::Stdio, |state| Ok::<_, Stop>(state.log.clone()))?;
        let stream: DynOutputStream = Box::new(Lines { log, stdio });
        Ok(self.wasi.table().push(stream)?)
    }
}

impl random::Host for HostState {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_u64()
    }
}

impl insecure::Host for HostState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_u64()
    }
}

impl insecure_seed::Host for HostState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random_u64()?, self.random_u64()?))
    }
}

impl stdout::Host for HostState {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.stdio(Stdio::Out)
    }
}

impl stderr::Host for HostState {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.stdio(Stdio::Err)
    }
}

/// A moment that a guest waits for; none is so far away that it never comes.
struct Alarm(Option<Instant>);

#[async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        match self.0 {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

/// A standard stream, which ends in the log.
struct Lines {
    log: Log,
    stdio: Stdio,
}

#[async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.log.print(self.stdio, &bytes).map_err(|stop| StreamError::Trap(stop.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE)
    }
}
