//! `interceptor` of the package: requests and decisions.

use std::time::{Duration, Instant};

use posthouse_model::{Decision, Membership, OrganizationRef, Question};

use super::{bindings::exports::posthouse::plugin::interceptor, types::nanoseconds};
use crate::imports::guest::Failure;

/// A question as the guest gets it.
pub(super) fn request<'a>(
    question: &'a Question,
    data: &'a str,
    deadline: Instant,
) -> interceptor::Request<'a> {
    let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_mins(1));
    interceptor::Request {
        id: question.id.as_str(),
        interceptor: question.interceptor(),
        trigger: question.trigger.as_str(),
        environment_id: question.environment.as_deref(),
        user_id: question.user.as_deref(),
        email: question.email.as_deref(),
        organization_id: question.organization.as_deref(),
        client_id: question.client.as_deref(),
        ip: question.ip.as_deref(),
        region: question.region.as_deref(),
        triggered_at: question.triggered_at.map(nanoseconds),
        received_at: nanoseconds(question.received_at),
        data,
        body: &question.body,
        milliseconds_left: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
    }
}

impl From<interceptor::Decision> for Decision {
    fn from(decision: interceptor::Decision) -> Self {
        match decision {
            interceptor::Decision::Allow(grant) => {
                Self::Allow { claims: grant.claims, membership: grant.membership.map(Membership::from) }
            }
            interceptor::Decision::Deny(refusal) => {
                Self::Deny { message: refusal.message, code: refusal.code }
            }
        }
    }
}

impl From<interceptor::Membership> for Membership {
    fn from(membership: interceptor::Membership) -> Self {
        let organization = match membership.organization {
            interceptor::Organization::Id(id) => OrganizationRef::Id(id),
            interceptor::Organization::ExternalId(id) => OrganizationRef::ExternalId(id),
        };
        Self { organization, roles: membership.roles }
    }
}

impl From<interceptor::Failure> for Failure {
    fn from(failure: interceptor::Failure) -> Self {
        match failure {
            interceptor::Failure::Unsure(reason) => Self::Reject { reason },
        }
    }
}
