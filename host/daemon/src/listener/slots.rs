//! The connections of a listener, and which of them is closed for a new one.
//!
//! A new connection gets a slot unless each slot has a request that is admitted (see [`Peer::admit`]) or
//! shielded. One connection is closed for it, in this order:
//!
//! 1. the oldest connection without an admitted request so far. If such connections from one address have more
//!    than a quarter of all slots, it is the oldest from that address;
//! 2. of the others, the connection that has been idle for longest.
//!
//! So a stranger keeps a slot while nobody needs it. Strangers never lock out a sender or an operator, however
//! many they are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Bounds,
    peer::{Peer, Shared, Ticks, Why},
};

/// How many times the loop checks the connections within the shortest timeout.
const LOOKS: u32 = 4;
/// The shortest and the longest time between two checks.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_secs(1);
/// Strangers from one address may hold one slot in this many before they make room for others.
const HOG: usize = 4;
/// If descriptors run out, one connection in this many is closed.
const SHRINK: usize = 8;

/// The connections of one listener.
pub(super) struct ConnectionSlots {
    bound: usize,
    shared: Arc<Shared>,
    limits: Ticks,
    /// The time between two checks of the timeouts.
    pub(super) tick: Duration,
    table: Mutex<Table>,
    /// Addresses behind which there are many peers.
    proxies: Arc<[ipnet::IpNet]>,
}

#[derive(Default)]
struct Table {
    /// The current number of slots: below the bound after descriptors ran out.
    most: usize,
    came: u64,
    peers: BTreeMap<u64, Arc<Peer>>,
    /// Connections without an admitted request, as far as the table knows.
    strangers: BTreeSet<u64>,
    /// The strangers by network. `by_count` has the networks, ordered by their number of strangers.
    by_network: HashMap<IpAddr, BTreeSet<u64>>,
    by_count: BTreeSet<(usize, IpAddr)>,
}

impl ConnectionSlots {
    pub(super) fn new(bounds: &Bounds, proxies: Arc<[ipnet::IpNet]>) -> Self {
        let shortest = bounds.header_timeout.min(bounds.body_timeout).min(bounds.idle_timeout);
        let tick = (shortest.min(bounds.write_timeout) / LOOKS).clamp(SHORTEST, LONGEST);
        let ticks = |time: Duration| {
            u32::try_from(time.as_millis().div_ceil(tick.as_millis().max(1))).unwrap_or(u32::MAX)
        };
        let limits = Ticks {
            head: ticks(bounds.header_timeout),
            body: ticks(bounds.body_timeout),
            idle: ticks(bounds.idle_timeout),
            write: ticks(bounds.write_timeout),
        };
        Self {
            bound: bounds.connections.max(1),
            shared: Arc::new(Shared::new(bounds.admitted.max(1), bounds.shielded)),
            limits,
            tick,
            table: Mutex::new(Table { most: bounds.connections.max(1), ..Table::default() }),
            proxies,
        }
    }

    /// Gives a new connection a slot, and returns whether another connection is closed for it. None if every
    /// slot has an admitted or shielded request.
    pub(super) fn enter(&self, address: IpAddr) -> Option<(Arc<Peer>, bool)> {
        let mut table = self.table.lock();
        let full = table.peers.len() >= table.most;
        if full && !self.make_room_in(&mut table) {
            return None;
        }
        let (number, shared) = (table.came, Arc::clone(&self.shared));
        table.came += 1;
        let peer = Arc::new(Peer::new(address, number, shared));
        table.insert(Arc::clone(&peer), self.network(address));
        Some((peer, full))
    }

    /// Closes some connections because descriptors ran out. Their slots return one by one. Returns whether any
    /// connection could be closed.
    pub(super) fn shrink(&self) -> bool {
        let mut table = self.table.lock();
        let there = table.peers.len();
        table.most = there.saturating_sub(1 + there / SHRINK).max(1);
        while table.peers.len() > table.most && self.make_room_in(&mut table) {}
        table.peers.len() < there
    }

    fn make_room_in(&self, table: &mut Table) -> bool {
        let Some(peer) = self.who_leaves(table) else { return false };
        peer.tell(Why::Crowded);
        // The connection's task takes a moment to end, but the slot is free from now on.
        table.remove(&peer, self.network(peer.address()));
        true
    }

    fn who_leaves(&self, table: &mut Table) -> Option<Arc<Peer>> {
        let stranger = self.oldest_stranger(table);
        stranger.or_else(|| {
            let idle = table.peers.values().filter(|peer| !peer.is_kept());
            idle.min_by_key(|peer| (peer.idle_since(), peer.number)).cloned()
        })
    }

    fn oldest_stranger(&self, table: &mut Table) -> Option<Arc<Peer>> {
        loop {
            let hog = table
                .by_count
                .last()
                .filter(|(count, network)| *count > table.most.div_ceil(HOG) && !self.is_proxy(*network));
            let of_hog = hog.and_then(|(_, network)| table.by_network.get(network));
            let strangers = of_hog.unwrap_or(&table.strangers);
            let mut peers = strangers.iter().filter_map(|number| table.peers.get(number));
            let peer = Arc::clone(peers.find(|peer| !peer.is_shielded())?);
            if !peer.is_known() {
                return Some(peer);
            }
            let network = self.network(peer.address());
            table.no_stranger(peer.number, network);
        }
    }

    /// Removes a connection that has ended.
    pub(super) fn leave(&self, peer: &Arc<Peer>) {
        self.table.lock().remove(peer, self.network(peer.address()));
    }

    /// Records that the connection only waits for its peer to read the last answer. From now on it is closed
    /// first.
    pub(super) fn ends(&self, peer: &Arc<Peer>) {
        peer.known.store(false, Ordering::Release);
        let mut table = self.table.lock();
        if table.peers.contains_key(&peer.number) {
            table.strangers.insert(peer.number);
        }
    }

    /// Advances by one tick, and ends each connection with an expired timeout.
    pub(super) fn look(&self) {
        self.shared.now.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table.lock();
        table.most = (table.most + 1).min(self.bound);
        for peer in table.peers.values() {
            if let Some(why) = peer.overdue(&self.limits) {
                peer.tell(why);
            }
        }
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|proxies| proxies.contains(&address))
    }

    /// The unit that counts as one address. For IPv6 it is a /64, since one customer has at least that. A proxy
    /// counts alone.
    fn network(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V6(ip) if !self.is_proxy(address) => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            other => other,
        }
    }
}

impl Table {
    fn insert(&mut self, peer: Arc<Peer>, network: IpAddr) {
        let number = peer.number;
        self.peers.insert(number, peer);
        self.strangers.insert(number);
        self.change(network, |numbers| numbers.insert(number));
    }

    fn remove(&mut self, peer: &Peer, network: IpAddr) {
        self.peers.remove(&peer.number);
        self.no_stranger(peer.number, network);
    }

    fn no_stranger(&mut self, number: u64, network: IpAddr) {
        self.strangers.remove(&number);
        self.change(network, |numbers| numbers.remove(&number));
    }

    /// Changes the strangers of a network, and updates the count.
    fn change(&mut self, network: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let numbers = self.by_network.entry(network).or_default();
        let before = numbers.len();
        change(numbers);
        let after = numbers.len();
        self.by_count.remove(&(before, network));
        if after > 0 {
            self.by_count.insert((after, network));
        } else {
            self.by_network.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(connections: usize) -> ConnectionSlots {
        let time = Duration::from_secs(1);
        let bounds = Bounds {
            name: "test",
            connections,
            admitted: connections,
            shielded: 1,
            header_timeout: time,
            body_timeout: time,
            idle_timeout: time,
            write_timeout: time,
            shutdown_timeout: time,
            half_close: true,
        };
        ConnectionSlots::new(&bounds, Arc::new(["10.0.0.1/32".parse().expect("a network")]))
    }

    /// Those of `all` that are closed, by number.
    fn left(slots: &ConnectionSlots, all: &[Arc<Peer>]) -> Vec<u64> {
        let table = slots.table.lock();
        all.iter().map(|peer| peer.number).filter(|number| !table.peers.contains_key(number)).collect()
    }

    fn ip(last: u8) -> IpAddr {
        [203, 0, 113, last].into()
    }

    #[test]
    fn the_oldest_stranger_leaves_then_whoever_is_idle_longest_and_never_who_is_under_way() {
        let slots = slots(8);
        let enter = |last| slots.enter(ip(last)).map(|(peer, _)| peer);
        let all: Vec<_> = (0..8).map(|last| enter(last).expect("a slot")).collect();
        let serving: Vec<_> = all.iter().map(Peer::serve).collect();
        for peer in &all[..6] {
            peer.admit().expect("room");
        }
        let newer: Vec<_> = (8..10).map(|last| enter(last).expect("a slot")).collect();
        assert_eq!(left(&slots, &all), [6, 7], "strangers, though others came before");
        // The first two of the known connections are answered, the second one first.
        let mut serving = serving.into_iter();
        let first = serving.next();
        drop(serving.next());
        slots.look();
        drop(first);
        for peer in &newer {
            let serving = peer.serve();
            peer.admit().expect("room");
            std::mem::forget(serving);
        }
        enter(10).expect("a slot");
        assert_eq!(left(&slots, &all), [1, 6, 7]);
        let stranger = enter(11).expect("a slot of the stranger before");
        let kept = stranger.shield().expect("a shield");
        enter(12).expect("the last one that is idle");
        assert_eq!(left(&slots, &all), [0, 1, 6, 7]);
        let last = enter(13).expect("the slot of the stranger before");
        last.serve();
        drop(kept);
        enter(14).expect("the slot of one whose shield is gone");
        drop(serving);
    }

    #[test]
    fn where_each_place_has_a_request_nobody_enters() {
        let slots = slots(3);
        let all: Vec<_> = (0..3).map(|last| slots.enter(ip(last)).expect("a slot").0).collect();
        let serving: Vec<_> = all.iter().map(Peer::serve).collect();
        all.iter().for_each(|peer| peer.admit().expect("room"));
        assert!(slots.enter(ip(9)).is_none());
        assert!(!slots.shrink());
        drop(serving);
        assert!(slots.enter(ip(9)).is_some());
    }

    #[test]
    fn without_descriptors_some_leave_and_their_places_come_back_one_by_one() {
        let slots = slots(16);
        let all: Vec<_> = (0..16).map(|last| slots.enter(ip(last)).expect("a slot").0).collect();
        assert!(slots.shrink());
        assert_eq!(left(&slots, &all), [0, 1, 2]);
        slots.enter(ip(99)).expect("a slot of another");
        assert_eq!(left(&slots, &all), [0, 1, 2, 3]);
        (0..2).for_each(|_| slots.look());
        for _ in 0..3 {
            slots.enter(ip(99)).expect("a slot");
        }
        assert_eq!(left(&slots, &all), [0, 1, 2, 3, 4], "two were free again");
    }

    #[test]
    fn an_address_with_many_strangers_makes_room_before_others_unless_it_is_a_proxy() {
        for (many, hog, leaves) in [(ip(7), true, 1), ("10.0.0.1".parse().expect("an address"), false, 0)] {
            let slots = slots(8);
            let mut all = vec![slots.enter(ip(1)).expect("a slot").0];
            all.extend((0..7).map(|_| slots.enter(many).expect("a slot").0));
            slots.enter(ip(2)).expect("a slot");
            assert_eq!(left(&slots, &all), [leaves], "{many}, {hog}");
        }
        // A whole IPv6 network counts as one address.
        let slots = slots(8);
        let mut all = vec![slots.enter(ip(1)).expect("a slot").0];
        let address = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 1, last, 1, 2, last).into();
        all.extend((0..7).map(|last| slots.enter(address(last)).expect("a slot").0));
        slots.enter(ip(2)).expect("a slot");
        assert_eq!(left(&slots, &all), [1]);
    }

    #[test]
    fn what_is_counted_by_network_is_what_is_there() {
        let slots = slots(100);
        let peers: Vec<_> = (0..50).map(|n| slots.enter(ip(n % 7)).expect("a slot").0).collect();
        peers.iter().for_each(|peer| slots.leave(peer));
        peers.iter().for_each(|peer| slots.leave(peer));
        let table = slots.table.lock();
        assert!(table.peers.is_empty() && table.strangers.is_empty());
        assert!(table.by_network.is_empty() && table.by_count.is_empty());
    }
}
