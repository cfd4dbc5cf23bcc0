//! Answers the requests of interceptors: checks the signature, reads the question, and passes it on to be decided.
//!
//! | request | answer |
//! | --- | --- |
//! | decided | 200 with the decision |
//! | a known id | 200 with the recorded answer |
//! | no decision, or a question that can't be read or is not among the triggers | 200 as `on_failure` says |
//! | a bad signature | 200 with DENY, whatever `on_failure` says |
//! | too large, too slow, another method | as at a source |

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response, StatusCode, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use posthouse_model::{Fallback, Question, RequestOutcome, Ruling, config};

use super::{
    Inbox, Ingress, KeyError, Refusal, Verifier,
    body::content_coding,
    ending::{Ending, json},
    handler::{Shared, Tally},
    question,
    request::Head,
};

use crate::listener::Peer;

/// What a sender gets.
#[derive(Debug, Clone)]
pub struct InterceptorAnswer {
    /// The JSON.
    pub body: String,
    /// Whether the request was known.
    pub repeated: bool,
    /// Why there is no decision.
    pub cause: Option<Fallback>,
}

/// Decides about a question of this interceptor, which arrived at this time. It answers by the deadline.
pub type Decide = Arc<
    dyn Fn(Question, Arc<config::Interceptor>, Instant) -> BoxFuture<'static, InterceptorAnswer>
        + Send
        + Sync,
>;

/// The interceptors by path.
pub(super) type Doors = HashMap<String, Arc<Door>>;

/// An interceptor with everything that its requests need.
pub(super) struct Door {
    settings: Arc<config::Interceptor>,
    verifier: Verifier,
    tally: Arc<Tally>,
}

impl<I: Inbox> Ingress<I> {
    /// Passes the questions of interceptors to `decide`, from now on. Only the first call counts.
    pub fn decided_by(&self, decide: Decide) {
        let _ = self.0.decide.set(decide);
    }

    /// Replaces all interceptors at once, or none. A request ends with the interceptor that it began with.
    ///
    /// # Errors
    /// [`KeyError`] names the secret that cannot be used; then nothing has changed.
    pub fn replace_interceptors(&self, interceptors: &[config::Interceptor]) -> Result<(), KeyError> {
        let doors = interceptors.iter().map(|interceptor| {
            let door = Door {
                settings: Arc::new(interceptor.clone()),
                verifier: Verifier::new(&interceptor.source)?,
                tally: self.0.tally(interceptor.source.name.as_str()),
            };
            Ok((interceptor.source.path.clone(), Arc::new(door)))
        });
        let doors = doors.collect::<Result<Doors, KeyError>>()?;
        self.0.interceptors.store(Arc::new(doors));
        Ok(())
    }
}

impl<I: Inbox> Shared<I> {
    /// Answers a request of an interceptor.
    pub(super) async fn answer_interceptor(
        &self,
        door: &Door,
        head: &Parts,
        body: Incoming,
        peer: &Peer,
    ) -> Response<Full<Bytes>> {
        let receipt = door.tally.ledger.receive();
        let decided = self.decided(door, head, body, peer).await;
        let (outcome, response) = match decided {
            Ok(answer) => {
                let outcome = match (answer.repeated, answer.cause) {
                    (true, _) => RequestOutcome::Duplicate,
                    (false, Some(Fallback::Store)) => RequestOutcome::Failed("store-write"),
                    (false, _) => RequestOutcome::Accepted,
                };
                (outcome, json(StatusCode::OK, answer.body))
            }
            Err(ending) => {
                let client = || crate::listener::client(peer.address(), &head.headers, &self.proxies);
                door.tally.log(door.settings.source.name.as_str(), &ending, client, self.env.now());
                (ending.outcome(), door.response(&ending))
            }
        };
        receipt.settle(outcome);
        response
    }

    async fn decided(
        &self,
        door: &Door,
        head: &Parts,
        body: Incoming,
        peer: &Peer,
    ) -> Result<InterceptorAnswer, Ending> {
        let arrived = Instant::now();
        if head.method != Method::POST {
            return Err(Ending::WrongMethod);
        }
        if content_coding(&head.headers).is_some() {
            return Err(Ending::Compressed);
        }
        self.bodies.check_length(&body)?;
        let headers = one_family(&head.headers)?;
        let claimed = Head { method: head.method.as_str(), query: head.uri.query(), headers: &headers };
        let claim = door.verifier.claim(claimed)?;
        self.check_age(|now| claim.check_age(door.verifier.tolerance(), now))?;
        // The decision itself takes none of the `max_requests` places.
        let question = {
            let (body, _room) = self.bodies.read(body).await?;
            let Ok(_place) = self.places.try_acquire() else { return Err(Ending::Busy) };
            let whole = claim.with_body(&body)?;
            self.check_age(|now| whole.check_age(door.verifier.tolerance(), now))?;
            let verified = door.verifier.verify_claim(&whole, None)?;
            peer.admit().map_err(|_| Ending::Busy)?;
            question::read(&door.settings.source.name, &headers, verified.body(), self.env.now())?
        };
        if !door.settings.triggers.contains(&question.trigger) {
            return Err(Ending::Filtered);
        }
        match self.decide.get() {
            Some(decide) => Ok(decide(question, Arc::clone(&door.settings), arrived).await),
            None => Ok(InterceptorAnswer {
                body: door.fallback(),
                repeated: false,
                cause: Some(Fallback::NoPlugin),
            }),
        }
    }
}

impl Door {
    /// The answer without a decision.
    fn fallback(&self) -> String {
        Ruling::plain(self.settings.on_failure.allows() || !self.settings.enforce).answer
    }

    /// The response to a request that is not decided about.
    fn response(&self, ending: &Ending) -> Response<Full<Bytes>> {
        match ending {
            // Nobody but the sender may get more than a no.
            Ending::Refused(_) => json(StatusCode::OK, Ruling::plain(false).answer),
            Ending::NoEvent(_) | Ending::Filtered => json(StatusCode::OK, self.fallback()),
            other => other.response(),
        }
    }
}

/// The headers of a request with one family of signed headers. A sender may send its own beside those of webhooks, if
/// both say the same.
///
/// # Errors
/// [`Refusal::Ambiguous`] if they differ.
fn one_family(headers: &HeaderMap) -> Result<Cow<'_, HeaderMap>, Refusal> {
    const PARTS: [[&str; 2]; 3] = [
        ["interceptor-id", "webhook-id"],
        ["interceptor-timestamp", "webhook-timestamp"],
        ["interceptor-signature", "webhook-signature"],
    ];
    let has = |family: usize| PARTS.iter().any(|part| headers.contains_key(part[family]));
    if !(has(0) && has(1)) {
        return Ok(Cow::Borrowed(headers));
    }
    let mut one = headers.clone();
    for [own, twin] in PARTS {
        let values = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        if values(own).len() != 1 || values(own) != values(twin) {
            return Err(Refusal::Ambiguous(own.into(), twin.into()));
        }
        one.remove(twin);
    }
    Ok(Cow::Owned(one))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn two_families_are_one_if_they_say_the_same() {
        let own =
            [("interceptor-id", "a"), ("interceptor-timestamp", "1"), ("interceptor-signature", "v1,x")];
        let twin = [("webhook-id", "a"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,x")];
        let both = headers(&[own, twin].concat());
        assert_eq!(*one_family(&both).unwrap(), headers(&own));
        assert_eq!(*one_family(&headers(&own)).unwrap(), headers(&own));
        assert_eq!(*one_family(&headers(&twin)).unwrap(), headers(&twin));
        for left_out in 0..3 {
            let mut fewer = twin.to_vec();
            fewer.remove(left_out);
            let fewer = headers(&[&own[..], &fewer].concat());
            assert_eq!(one_family(&fewer).unwrap_err().label(), "ambiguous-headers");
            let mut other = twin;
            other[left_out].1 = "2";
            let other = headers(&[own, other].concat());
            assert_eq!(one_family(&other).unwrap_err().label(), "ambiguous-headers");
            let mut twice = own.to_vec();
            twice.push(own[left_out]);
            let twice = headers(&[&twice[..], &twin].concat());
            assert_eq!(one_family(&twice).unwrap_err().label(), "ambiguous-headers");
        }
    }
}
