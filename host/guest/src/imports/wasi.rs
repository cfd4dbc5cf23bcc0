//! WASI 0.2 for components whose tool chain imports it. It links, and offers little.
//!
//! Clocks, random numbers, waiting and writes to the standard streams are host calls. There are no files, no environment
//! and no arguments, sockets are refused, and standard input is at its end: that part is wasmtime's own, and none of its
//! answers differs between attempts.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{
    WasiCtx, WasiCtxView, WasiView, async_trait,
    p2::{
        self, DynInputStream, DynOutputStream, DynPollable, OutputStream, Pollable, StreamError,
        StreamResult,
        bindings::{
            cli::{exit, stderr, stdout},
            clocks::{monotonic_clock, wall_clock},
            random::{insecure, insecure_seed, random},
        },
        subscribe,
    },
};
use wasmtime_wasi_io::bindings::wasi::io::{poll, streams};

use super::{
    call::{HostCall, Stdio, answered},
    limits::{HANDLES, RANDOM_BYTES, Stop},
    state::HostState,
};

/// Bytes that a stream accepts in one write.
const WRITE: usize = 64 << 10;
/// Bytes that a stream accepts in one write that also flushes. WASI sets this limit.
const WRITE_AND_FLUSH: usize = 4096;

/// The state of wasmtime-wasi for an instance. The first call that needs it creates it, since most guests in Rust
/// need none of it.
#[derive(Default)]
pub(super) struct Wasi(Option<Box<Open>>);

struct Open {
    ctx: WasiCtx,
    table: ResourceTable,
    /// The handles of standard output and standard error, at most as many as there may be handles.
    streams: Vec<(u32, Stdio)>,
}

impl Wasi {
    fn open(&mut self) -> &mut Open {
        self.0.get_or_insert_with(|| {
            let mut table = ResourceTable::new();
            table.set_max_capacity(HANDLES);
            let ctx = WasiCtx::builder().allow_tcp(false).allow_udp(false).max_random_size(0).build();
            Box::new(Open { ctx, table, streams: Vec::new() })
        })
    }

    fn table(&mut self) -> &mut ResourceTable {
        &mut self.open().table
    }

    /// Waits until one of the pollables is ready, and returns the positions of all that are.
    pub(super) async fn poll(&mut self, pollables: &[u32]) -> Result<Vec<u32>, Stop> {
        let pollables = pollables.iter().map(|handle| Resource::new_borrow(*handle)).collect();
        poll::Host::poll(self.table(), pollables).await.map_err(stop)
    }

    /// Waits until the pollable is ready.
    pub(super) async fn block(&mut self, pollable: u32) -> Result<(), Stop> {
        poll::HostPollable::block(self.table(), Resource::new_borrow(pollable)).await.map_err(stop)
    }

    /// Whether the pollable is ready.
    pub(super) async fn is_ready(&mut self, pollable: u32) -> Result<bool, Stop> {
        poll::HostPollable::ready(self.table(), Resource::new_borrow(pollable)).await.map_err(stop)
    }
}

/// An error of wasmtime-wasi as the end of the attempt.
fn stop(error: wasmtime::Error) -> Stop {
    Stop::Wasi(error.root_cause().to_string())
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Open { ctx, table, .. } = self.wasi.open();
        WasiCtxView { ctx, table }
    }
}

/// Offers all of WASI 0.2 to guests.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    p2::add_to_linker_async(linker)?;
    // These replace wasmtime's own.
    linker.allow_shadowing(true);
    wall_clock::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    monotonic_clock::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    random::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    insecure::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    insecure_seed::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    stdout::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    stderr::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    exit::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    poll::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    streams::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl wall_clock::Host for HostState {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = answered!(self.call_now(HostCall::WallClock)?, WallClock)?;
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
        Ok(answered!(self.call_now(HostCall::MonotonicClock)?, MonotonicClock)?)
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Duration> {
        Ok(1)
    }

    fn subscribe_instant(
        &mut self,
        instant: monotonic_clock::Instant,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let due = answered!(self.call_now(HostCall::AlarmAt { instant })?, AlarmAt)?;
        self.alarm(due)
    }

    fn subscribe_duration(
        &mut self,
        duration: monotonic_clock::Duration,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let due = answered!(self.call_now(HostCall::AlarmAfter { duration })?, AlarmAfter)?;
        self.alarm(due)
    }
}

impl HostState {
    /// Nanoseconds since the instance was created.
    pub(super) fn monotonic(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns random bytes.
    pub(super) fn random_bytes(&self, length: u64) -> Result<Vec<u8>, Stop> {
        if length > RANDOM_BYTES {
            return Err(Stop::bytes("random_bytes", RANDOM_BYTES as usize));
        }
        let mut bytes = vec![0; length as usize];
        self.context.env.fill(&mut bytes);
        Ok(bytes)
    }

    /// Creates a handle that is ready at this time on the monotonic clock.
    fn alarm(&mut self, due: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let due = self.born.checked_add(Duration::from_nanos(due));
        let alarm = self.wasi.table().push(Alarm(due.map(Instant::from_std)))?;
        subscribe(self.wasi.table(), alarm)
    }

    /// Creates a handle of a standard stream.
    fn open_stream(&mut self, stream: Stdio) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.call_now(HostCall::OpenStream(stream))?;
        let Open { table, streams, .. } = self.wasi.open();
        let handle = table.push::<DynOutputStream>(Box::new(Standard))?;
        streams.push((handle.rep(), stream));
        Ok(handle)
    }

    /// Writes to a standard stream.
    fn print(&mut self, handle: &Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        let open = &self.wasi.open().streams;
        // No other function creates an output stream.
        let Some((_, stream)) = open.iter().find(|(rep, _)| *rep == handle.rep()) else {
            return Err(StreamError::Closed);
        };
        let print = HostCall::Print { stream: *stream, bytes };
        self.call_now(print).map(drop).map_err(|stop| StreamError::Trap(stop.into()))
    }
}

impl random::Host for HostState {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        Ok(answered!(self.call_now(HostCall::RandomBytes { length })?, RandomBytes)?)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(answered!(self.call_now(HostCall::RandomNumber)?, RandomNumber)?)
    }
}

impl insecure::Host for HostState {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        random::Host::get_random_bytes(self, length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        random::Host::get_random_u64(self)
    }
}

impl insecure_seed::Host for HostState {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok(answered!(self.call_now(HostCall::RandomSeed)?, RandomSeed)?)
    }
}

impl stdout::Host for HostState {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.open_stream(Stdio::Out)
    }
}

impl stderr::Host for HostState {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.open_stream(Stdio::Err)
    }
}

impl exit::Host for HostState {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        exit::Host::exit_with_code(self, u8::from(status.is_err()))
    }

    fn exit_with_code(&mut self, status: u8) -> wasmtime::Result<()> {
        self.call_now(HostCall::Exit { status })?;
        Ok(())
    }
}

impl poll::Host for HostState {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        let pollables = pollables.iter().map(Resource::rep).collect();
        Ok(answered!(self.call(HostCall::Poll { pollables }).await?, Poll)?)
    }
}

impl poll::HostPollable for HostState {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        Ok(answered!(self.call(HostCall::Ready { pollable: pollable.rep() }).await?, Ready)?)
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.call(HostCall::Block { pollable: pollable.rep() }).await?;
        Ok(())
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        poll::HostPollable::drop(self.wasi.table(), pollable)
    }
}

impl streams::Host for HostState {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.wasi.table(), error)
    }
}

/// Standard input, the only input stream, is wasmtime's own and at its end.
impl streams::HostInputStream for HostState {
    fn read(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::read(self.wasi.table(), stream, length)
    }

    async fn blocking_read(
        &mut self,
        stream: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::blocking_read(self.wasi.table(), stream, length).await
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        streams::HostInputStream::skip(self.wasi.table(), stream, length)
    }

    async fn blocking_skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        streams::HostInputStream::blocking_skip(self.wasi.table(), stream, length).await
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(self.wasi.table(), stream)
    }

    async fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        streams::HostInputStream::drop(self.wasi.table(), stream).await
    }
}

/// Every function that writes is one [`HostCall::Print`], if there are bytes to write. A write never waits.
impl streams::HostOutputStream for HostState {
    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        streams::HostOutputStream::check_write(self.wasi.table(), stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        self.print(&stream, bytes)
    }

    async fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        if bytes.len() > WRITE_AND_FLUSH {
            return Err(StreamError::trap(
                "Buffer too large for blocking-write-and-flush (expected at most 4096)",
            ));
        }
        self.print(&stream, bytes)
    }

    fn flush(&mut self, _stream: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    async fn blocking_flush(&mut self, _stream: Resource<DynOutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(self.wasi.table(), stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        if length > WRITE as u64 {
            return Err(StreamError::trap("cannot write more zeroes than `check_write` allows"));
        }
        self.print(&stream, vec![0; length as usize])
    }

    async fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        length: u64,
    ) -> StreamResult<()> {
        if length > WRITE_AND_FLUSH as u64 {
            return Err(StreamError::trap(
                "Buffer too large for blocking-write-zeroes-and-flush (expected at most 4096)",
            ));
        }
        self.print(&stream, vec![0; length as usize])
    }

    fn splice(
        &mut self,
        stream: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        let bytes = streams::HostInputStream::read(self, from, length.min(WRITE as u64))?;
        self.spliced(&stream, bytes)
    }

    async fn blocking_splice(
        &mut self,
        stream: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        let bytes = streams::HostInputStream::blocking_read(self, from, length.min(WRITE as u64)).await?;
        self.spliced(&stream, bytes)
    }

    async fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        let Open { table, streams, .. } = self.wasi.open();
        streams.retain(|(rep, _)| *rep != stream.rep());
        streams::HostOutputStream::drop(table, stream).await
    }
}

impl HostState {
    fn spliced(&mut self, stream: &Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<u64> {
        let length = bytes.len() as u64;
        if length > 0 {
            self.print(stream, bytes)?;
        }
        Ok(length)
    }
}

/// The end of a guest's wait. None if it is so far away that the wait never ends.
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

/// The entry of a standard stream in the table. It is always ready. Writes do not reach it: they are host calls.
struct Standard;

#[async_trait]
impl Pollable for Standard {
    async fn ready(&mut self) {}
}

impl OutputStream for Standard {
    fn write(&mut self, _bytes: Bytes) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE)
    }
}
