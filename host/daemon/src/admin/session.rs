//! Sessions: a browser that logs in with the token gets a session in place of the token.
//!
//! A session is a random number in a cookie. The daemon keeps only its SHA-256 and its end. A session ends
//! with the daemon, with a logout, or after half a day, whichever is first.

use jiff::Timestamp;
use parking_lot::Mutex;
use posthouse_model::Env;
use sha2::{Digest, Sha256};

/// The lifetime of a session, in seconds.
pub(super) const LIFETIME: i64 = 12 * 3600;
/// The most sessions; a further login ends the oldest.
const MOST: usize = 64;
/// The number of digits of a session's mark, which identifies it in the audit log.
const MARK: usize = 8;

/// The current sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Vec<Session>>);

struct Session {
    digest: [u8; 32],
    ends: Timestamp,
}

impl Sessions {
    /// Begins a session. Returns the value of its cookie.
    pub(super) fn begin(&self, env: &Env) -> String {
        let mut key = [0; 32];
        env.fill(&mut key);
        let key = hex::encode(key);
        let now = env.now();
        let mut sessions = self.0.lock();
        sessions.retain(|session| session.ends > now);
        if sessions.len() >= MOST {
            sessions.remove(0);
        }
        let ends = now.saturating_add(std::time::Duration::from_secs(LIFETIME.unsigned_abs()));
        sessions.push(Session { digest: digest(&key), ends: ends.unwrap_or(now) });
        key
    }

    /// The mark of the session with this key. None if there is no such session, or if it has ended.
    pub(super) fn mark(&self, key: &str, now: Timestamp) -> Option<String> {
        let digest = digest(key);
        let sessions = self.0.lock();
        let alive = sessions.iter().any(|session| session.digest == digest && session.ends > now);
        alive.then(|| hex::encode(digest)[..MARK].to_owned())
    }

    /// Ends a session.
    pub(super) fn end(&self, key: &str) {
        let digest = digest(key);
        self.0.lock().retain(|session| session.digest != digest);
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posthouse_model::testing::{ManualClock, Seeded};

    use super::*;

    #[test]
    fn a_session_ends_by_its_age_by_a_logout_or_by_too_many_others() {
        let env = Env::new(ManualClock::epoch(), Seeded::new(1));
        let sessions = Sessions::default();
        let first = sessions.begin(&env);
        let mark = sessions.mark(&first, env.now()).unwrap();
        assert!(mark.len() == MARK && !first.starts_with(&mark), "{mark}");
        assert_eq!(sessions.mark("", env.now()), None);
        assert_eq!(sessions.mark(&first[..63], env.now()), None);

        let later = env.now() + Duration::from_secs(LIFETIME as u64);
        assert_eq!(sessions.mark(&first, later), None);
        sessions.end(&first);
        assert_eq!(sessions.mark(&first, env.now()), None);

        let oldest = sessions.begin(&env);
        let others: Vec<_> = (0..MOST).map(|_| sessions.begin(&env)).collect();
        assert_eq!(sessions.mark(&oldest, env.now()), None);
        assert!(others.iter().all(|key| sessions.mark(key, env.now()).is_some()));
    }
}
