//! Computes the limits of a compiler child from the config and the memory of this machine.

use std::{fs, path::Path, time::Duration};

use posthouse_model::config::Compile;

/// The most memory of a child if config.toml sets none.
const MOST: u64 = 4 << 30;
/// The least memory of a child. A plugin of some 100 KiB needs less.
const LEAST: u64 = 256 << 20;

/// The least time that a child gets in all. It has low priority and waits while the machine is busy.
const LEAST_TIME: Duration = Duration::from_mins(5);

/// The limits of each child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of memory.
    pub(super) memory: u64,
    /// CPU time.
    pub(super) cpu: Duration,
}

impl Bounds {
    /// Returns these limits. If they set no memory, it is three quarters of this machine's or container's
    /// memory, from 256 MiB to 4 GiB.
    pub(super) fn on_this_machine(limits: &Compile) -> Self {
        let memory = limits.memory.unwrap_or_else(|| suitable(available()));
        Self { memory, cpu: limits.time }
    }

    /// How long a child may take in all, on a busy machine.
    pub(super) fn wall(&self) -> Duration {
        (self.cpu * 5 / 2).max(LEAST_TIME)
    }
}

fn suitable(available: u64) -> u64 {
    (available / 4 * 3).clamp(LEAST, MOST)
}

/// Bytes of memory that this process and its children may use. It is the machine's memory, or less if a control
/// group of theirs, or one above it, has a limit.
fn available() -> u64 {
    let machine = of_machine().unwrap_or(u64::MAX);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits(&groups, Path::new("/sys/fs/cgroup")).into_iter().fold(machine, u64::min)
}

/// Bytes of memory of the machine. The systemd unit hides /proc/meminfo, but not the files in /sys.
fn of_machine() -> Option<u64> {
    let total = |path: &Path| {
        let text = fs::read_to_string(path).ok()?;
        let (_, after) = text.split_once("MemTotal:")?;
        after.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    total(Path::new("/proc/meminfo")).or_else(|| {
        let nodes = fs::read_dir("/sys/devices/system/node").ok()?.flatten();
        nodes.filter_map(|node| total(&node.path().join("meminfo"))).reduce(u64::saturating_add)
    })
}

/// The limits of the control groups in `/proc/self/cgroup`, and of those above them.
fn limits(groups: &str, root: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be the host's. The group's own files are then at the root.
        let below = root.join(path.trim_start_matches('/'));
        for group in below.ancestors().take_while(|group| group.starts_with(&root)) {
            let text = fs::read_to_string(group.join(file)).unwrap_or_default();
            // `max` is not a number and means no limit.
            limits.extend(text.trim().parse::<u64>().ok());
        }
    }
    limits
}

/// How many processes the kernel has killed for lack of memory, in this control group and on the machine, as
/// far as it reports them.
pub(super) fn ended_for_lack_of_memory() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = own.map(|path| Path::new("/sys/fs/cgroup").join(path).join("memory.events"));
    let files = group.into_iter().chain([Path::new("/proc/vmstat").to_owned()]);
    files
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()))
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_leaves_memory_to_the_daemon_and_takes_no_more_than_4_gib() {
        const GIB: u64 = 1 << 30;
        let cases = [
            (GIB / 4, GIB / 4),
            (GIB / 2, GIB / 8 * 3),
            (GIB, GIB / 4 * 3),
            (4 * GIB, 3 * GIB),
            (64 * GIB, 4 * GIB),
        ];
        for (available, most) in cases {
            assert_eq!(suitable(available), most, "{available}");
        }
        let own = Bounds::on_this_machine(&Compile { memory: Some(7), ..Default::default() });
        assert_eq!(own.memory, 7);
        assert!(available() > 0);
    }

    #[test]
    fn the_least_limit_of_the_control_groups_holds() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("system.slice/memory.max", "1000\n");
        put("system.slice/posthouse.service/memory.max", "max\n");
        put("memory/docker/memory.limit_in_bytes", "500\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let limits = |groups| limits(groups, root.path());
        assert_eq!(limits("0::/system.slice/posthouse.service\n"), [1000]);
        assert_eq!(limits("5:cpu,memory:/docker\n1:cpu:/x\n"), [500, 9_223_372_036_854_771_712]);
        assert_eq!(limits("4:memory:/elsewhere\n"), [9_223_372_036_854_771_712]);
        assert!(limits("nonsense\n0::/\n").is_empty());
    }
}
