//! Watches a folder, such as the plugins folder. File system events wake it at once. A rescan every few seconds
//! finds changes without events: a link's target, a network drive, or a replaced folder.

use std::{os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// How long the folder must be quiet before it is scanned, because writing one file makes many events.
const QUIET: Duration = Duration::from_millis(50);
/// The longest delay of a scan if the folder is never quiet.
const BUSY: Duration = Duration::from_secs(1);

/// Wakes when the folder may have changed.
pub struct Watcher {
    dir: PathBuf,
    sender: mpsc::Sender<()>,
    events: mpsc::Receiver<()>,
    /// The source of events, with the folder (device and inode) that it watches.
    armed: Option<(RecommendedWatcher, (u64, u64))>,
    warned: bool,
}

impl Watcher {
    /// A watcher of this folder, which need not exist yet.
    pub fn new(dir: PathBuf) -> Self {
        // One message is enough to wake the receiver, so a message that finds the channel full can be dropped.
        let (sender, events) = mpsc::channel(1);
        Self { dir, sender, events, armed: None, warned: false }
    }

    /// Watches the present folder, if it does not already. Call it before the scan, so that no later change is
    /// missed.
    pub fn arm(&mut self) {
        let present = std::fs::metadata(&self.dir).ok().map(|folder| (folder.dev(), folder.ino()));
        if self.armed.as_ref().map(|(_, folder)| *folder) == present {
            return;
        }
        self.armed = None;
        let Some(folder) = present else { return };
        let sender = self.sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !changes(event.kind)) {
                return;
            }
            let _ = sender.try_send(());
        })
        .and_then(|mut watcher| watcher.watch(&self.dir, RecursiveMode::NonRecursive).map(|()| watcher));
        match watcher {
            Ok(watcher) => self.armed = Some((watcher, folder)),
            Err(error) if !self.warned => {
                self.warned = true;
                tracing::warn!(
                    dir = %self.dir.display(),
                    %error,
                    "could not watch a folder; it is scanned periodically instead"
                );
            }
            Err(_) => {}
        }
    }

    /// Waits for a change and for the quiet after it, or at most `rescan` for a change.
    pub async fn changed(&mut self, rescan: Duration) {
        tokio::select! {
            Some(()) = self.events.recv() => {}
            () = sleep(rescan) => return,
        }
        let latest = Instant::now() + BUSY;
        while Instant::now() < latest && timeout(QUIET, self.events.recv()).await.is_ok() {}
    }
}

/// Whether an event can mean new content. Reading a file also makes events.
fn changes(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Far longer than any event takes, so that only a missing event fails the test.
    const LONG: Duration = Duration::from_secs(60);

    async fn wakes(watcher: &mut Watcher) {
        timeout(LONG / 2, watcher.changed(LONG)).await.expect("the change was told");
    }

    #[tokio::test]
    async fn a_new_file_wakes_and_so_does_one_in_a_folder_that_was_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("plugins");
        let mut watcher = Watcher::new(dir.clone());
        watcher.arm();
        assert!(watcher.armed.is_none(), "there is nothing to watch yet");
        fs::create_dir(&dir).unwrap();
        watcher.arm();
        fs::write(dir.join("a.wasm"), b"x").unwrap();
        wakes(&mut watcher).await;
        fs::rename(&dir, root.path().join("old")).unwrap();
        fs::create_dir(&dir).unwrap();
        watcher.arm();
        while watcher.events.try_recv().is_ok() {}
        fs::write(dir.join("b.wasm"), b"x").unwrap();
        wakes(&mut watcher).await;
    }

    #[tokio::test]
    async fn reading_a_file_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), b"x").unwrap();
        let mut watcher = Watcher::new(dir.path().to_owned());
        watcher.arm();
        fs::read(dir.path().join("a.wasm")).unwrap();
        assert!(timeout(Duration::from_millis(200), watcher.events.recv()).await.is_err());
    }
}
