//! The login: exchanges the token for a session.

use std::sync::Arc;

use axum::{
    Extension, Form,
    extract::{Query, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::html;
use serde::Deserialize;

use super::{Page, layout};
use crate::{
    admin::{Action, Actor, Admin, guard::AccessCheck},
    listener::Peer,
};

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Given {
    token: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn page(Query(asked): Query<Asked>) -> Response {
    shown(&asked.next, "")
}

/// The login form, as the answer to a request that needs a session.
pub(super) fn refused(next: &str, said: &str) -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], shown(next, said)).into_response()
}

fn shown(next: &str, said: &str) -> Response {
    let body = html! {
        div.login.card.stack {
            @if !said.is_empty() { p.error role="alert" { (said) } }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(next);
                label for="token" { "Admin token" }
                input #token type="password" name="token" autocomplete="current-password" required autofocus;
                p { button { "Log in" } }
            }
            p.soft {
                "The value of " code { "[admin] token" } " in config.toml; without one, it is in the file "
                code { "admin-token" } " beside the store."
            }
        }
    };
    layout::framed("Log in", &html! {}, &body)
}

pub(super) async fn log_in(
    State(admin): State<Admin>,
    Extension(guard): Extension<Arc<AccessCheck>>,
    Extension(peer): Extension<Arc<Peer>>,
    headers: HeaderMap,
    given: Result<Form<Given>, FormRejection>,
) -> Page {
    let Form(given) = given?;
    if !guard.is_token(given.token.trim(), guard.client(&peer, &headers)).await {
        admin.noted(&Actor::stranger(), Action::LogIn, "dashboard", "refused: wrong token").await?;
        return Ok(refused(&given.next, "Wrong token."));
    }
    // The connection is no longer a stranger's and can't be crowded out. If no place is free, it stays one.
    let _ = peer.admit();
    let cookie = guard.log_in();
    admin.noted(&Actor::stranger(), Action::LogIn, "dashboard", "done").await?;
    Ok(with_cookie(&cookie, own_path(&given.next)))
}

pub(super) async fn log_out(
    State(admin): State<Admin>,
    Extension(actor): Extension<Actor>,
    Extension(guard): Extension<Arc<AccessCheck>>,
    headers: HeaderMap,
) -> Page {
    let cookie = guard.log_out(&headers);
    admin.noted(&actor, Action::LogOut, "dashboard", "done").await?;
    Ok(with_cookie(&cookie, "/login"))
}

fn with_cookie(cookie: &str, path: &str) -> Response {
    let mut response = Redirect::to(path).into_response();
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The path that a login leads to: always one of this listener.
fn own_path(next: &str) -> &str {
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if plain && next.starts_with('/') && !next.starts_with("//") && !next.starts_with("/login") {
        next
    } else {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_our_own_pages_alone() {
        assert_eq!(own_path("/events?type=user.created"), "/events?type=user.created");
        for odd in ["", "//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb", "/login"] {
            assert_eq!(own_path(odd), "/", "{odd}");
        }
    }
}
