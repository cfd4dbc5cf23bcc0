//! The daemon's side of a compiler child: a process that is killed when its owner is dropped, and how it ended.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use bytesize::ByteSize;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};
use tokio::{
    io::AsyncReadExt as _,
    process::ChildStderr,
    time::{MissedTickBehavior, interval, timeout},
};

use super::bounds::ended_for_lack_of_memory;
use crate::imports::cut;

/// The most bytes of the child's standard error that are kept.
const WORDS: u64 = 4 << 10;
/// The interval between two looks at the child's memory, which the kernel forgets when the child ends.
const LOOK: Duration = Duration::from_millis(50);
/// The interval after a child has closed its standard error, because it will end soon.
const SOON: Duration = Duration::from_millis(5);
/// How long to wait after the end for output that was written before.
const LAST: Duration = Duration::from_secs(1);

/// A running child. Dropping it kills the child.
pub(super) struct Process {
    child: Child,
    stderr: Option<ChildStderr>,
    reaped: bool,
    ended_before: u64,
}

/// How a child ended, and what it had used.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) status: ExitStatus,
    /// Its standard error, on one line.
    pub(super) words: String,
    /// Its CPU time.
    pub(super) cpu: Duration,
    /// The most memory that it was seen to use, in bytes.
    memory: u64,
    /// Whether the kernel killed a process for lack of memory while the child ran.
    starved: bool,
}

impl Process {
    /// Starts a child.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let ended_before = ended_for_lack_of_memory();
        // The daemon holds the child's standard input open. The child exits when it closes, and so ends with
        // the daemon.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut process = Self { child, stderr: None, reaped: false, ended_before };
        process.stderr = process.child.stderr.take().map(ChildStderr::from_std).transpose()?;
        Ok(process)
    }

    /// Waits until the child has ended.
    ///
    /// # Errors
    /// The system's error.
    pub(super) async fn ended(&mut self) -> io::Result<Ending> {
        let pid = self.child.id();
        let mut memory = 0;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let words = last_words(self.stderr.take());
        tokio::pin!(words);
        let mut said = None;
        while !self.has_ended()? {
            tokio::select! {
                words = &mut words, if said.is_none() => {
                    said = Some(words);
                    look = interval(SOON);
                }
                _ = look.tick() => memory = memory.max(peak_memory(pid)),
            }
        }
        let said = match said {
            Some(said) => said,
            // Another process may hold its standard error open, so the wait is limited.
            None => timeout(LAST, words).await.unwrap_or_default(),
        };
        // /proc has no entry for the child after the wait.
        let cpu = cpu_time(pid);
        let status = self.child.wait()?;
        self.reaped = true;
        let starved = ended_for_lack_of_memory() > self.ended_before;
        Ok(Ending { status, words: one_line(&said), cpu, memory, starved })
    }
}

impl Process {
    /// Whether the child has ended. Its entry in /proc remains until it is waited for.
    fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(Pid::from_child(&self.child)), options)?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let _ = self.child.kill();
        // The end of a process with much memory takes a while, so no thread of the runtime waits for it.
        let pid = Pid::from_child(&self.child);
        let reap = move || {
            let _ = waitpid(Some(pid), WaitOptions::empty());
        };
        if let Err(error) = std::thread::Builder::new().name("reaper".to_owned()).spawn(reap) {
            tracing::debug!(%error, "could not start the thread that waits for a compiler to exit");
            let _ = self.child.wait();
        }
    }
}

impl Ending {
    /// Describes the CPU time and memory that it used.
    pub(super) fn used(&self) -> String {
        let memory = match self.memory {
            0 => "an unknown amount of memory".to_owned(),
            bytes => format!("{} of memory", ByteSize(bytes)),
        };
        format!("after {:.1} s of CPU, with {memory}", self.cpu.as_secs_f64())
    }

    /// Says why the kernel or another process killed it, as far as that is known. posthouse did not.
    pub(super) fn killed(&self) -> String {
        let used = self.used();
        match self.starved {
            true => format!(
                "the kernel killed the compiler for lack of memory {used}; give the machine or the container \
                 more, or make the plugin smaller"
            ),
            false => format!(
                "something other than posthouse killed the compiler (signal {}, SIGKILL) {used}; the kernel \
                 does that when memory runs out",
                self.status.signal().unwrap_or_default()
            ),
        }
    }
}

/// Reads a child's standard error and returns its beginning.
async fn last_words(stderr: Option<ChildStderr>) -> Vec<u8> {
    let mut words = Vec::new();
    if let Some(mut stderr) = stderr {
        let _ = (&mut stderr).take(WORDS).read_to_end(&mut words).await;
        // The rest is read too, because a child whose pipe is full would block.
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    }
    words
}

fn one_line(words: &[u8]) -> String {
    let mut words = String::from_utf8_lossy(words).trim().replace('\n', "; ");
    cut(&mut words, WORDS as usize);
    words
}

/// The most bytes of memory that a process has used at once, or 0 if that is unknown.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() << 10
}

/// The CPU time of a process that runs or was not waited for yet, or zero if that is unknown.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may contain anything. The fields after it begin with the third. utime and stime
    // are the 14th and the 15th.
    let Some((_, fields)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let ticks: u64 =
        fields.split_ascii_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}
