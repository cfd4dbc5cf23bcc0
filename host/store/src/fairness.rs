//! Fairness of the outbox: which plugin gets a free slot. Within a kind the slots go to the plugin that has
//! the fewest, so that a plugin with slow items does not delay the others.

/// A plugin with due items.
pub(super) struct Claim {
    pub(super) plugin: i64,
    /// Its items that are being sent.
    pub(super) under_way: usize,
    /// Its due items; not counted beyond the number of slots.
    pub(super) due: usize,
    /// The slots that it was granted.
    pub(super) granted: usize,
}

/// Grants the `free` slots one at a time to the plugin that has the fewest. With `kept`, no plugin gets a
/// slot if it would then have more than remain free.
pub(super) fn grant(claims: &mut [Claim], mut free: usize, kept: bool) {
    while free > 0
        && let Some(claim) = claims
            .iter_mut()
            .filter(|claim| claim.granted < claim.due)
            .min_by_key(|claim| claim.under_way + claim.granted)
        && (!kept || claim.under_way + claim.granted < free)
    {
        claim.granted += 1;
        free -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The grants to plugins that are sending so many items, and have so many more due.
    fn granted(claims: &[(usize, usize)], free: usize, kept: bool) -> Vec<usize> {
        let mut claims: Vec<_> = claims
            .iter()
            .map(|(under_way, due)| Claim { plugin: 0, under_way: *under_way, due: *due, granted: 0 })
            .collect();
        grant(&mut claims, free, kept);
        claims.iter().map(|claim| claim.granted).collect()
    }

    #[test]
    fn places_go_to_who_has_the_fewest() {
        assert_eq!(granted(&[(0, 100)], 8, false), [8]);
        assert_eq!(granted(&[(0, 100), (0, 100)], 8, false), [4, 4]);
        assert_eq!(granted(&[(6, 100), (0, 100)], 2, false), [0, 2]);
        assert_eq!(granted(&[(0, 100), (0, 1), (3, 9)], 8, false), [5, 1, 2]);
        assert_eq!(granted(&[(0, 1)], 0, false), [0]);
    }

    #[test]
    fn where_places_are_kept_nobody_has_more_than_there_are_free() {
        assert_eq!(granted(&[(0, 100)], 64, true), [32]);
        assert_eq!(granted(&[(32, 100), (0, 100)], 32, true), [0, 16]);
        assert_eq!(granted(&[(32, 9), (16, 9), (8, 9), (4, 9), (2, 9), (0, 9)], 2, true), [0, 0, 0, 0, 0, 1]);
        assert_eq!(granted(&[(0, 2), (0, 2)], 64, true), [2, 2]);
    }
}
