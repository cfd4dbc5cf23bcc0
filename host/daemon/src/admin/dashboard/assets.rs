//! The files that pages load: a style, a script and an icon, embedded in the daemon. They are the same for
//! everybody, and say nothing about this daemon.

use axum::{http::header, response::IntoResponse};

pub(super) const STYLE: &str = "/assets/style.css";
pub(super) const SCRIPT: &str = "/assets/live.js";
pub(super) const ICON: &str = "/assets/icon.svg";

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css"))
}

pub(super) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("live.js"))
}

pub(super) async fn icon() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "image/svg+xml")], include_str!("icon.svg"))
}
