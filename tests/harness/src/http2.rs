//! A connection of a [`WebServer`](crate::WebServer) over HTTP/2, within TLS.

use std::{
    future::poll_fn,
    io,
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response};
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::{Headers, WebReply, WebRequest, web::Connection};

/// The interval of checks whether the server has stopped.
const LOOK: Duration = Duration::from_millis(20);

/// How the server ends a connection before the client does.
enum End {
    /// Completes active streams, and accepts no new ones.
    Gracefully,
    /// At once, with an error code.
    Abruptly,
}

/// Serves a connection until it or the server ends.
pub(crate) fn serve(connection: &Connection, stream: TcpStream, tls: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let stream = TlsAcceptor::from(tls).accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the other side does not speak HTTP/2"));
        }
        let mut streams = h2::server::handshake(stream).await.map_err(io::Error::other)?;
        let (end, mut ends) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                accepted = streams.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        tokio::spawn(answer(connection.clone(), request, respond, end.clone()));
                    }
                    Some(Err(error)) => return Err(io::Error::other(error)),
                    None => return Ok(()),
                },
                Some(end) = ends.recv() => match end {
                    End::Gracefully => streams.graceful_shutdown(),
                    End::Abruptly => {
                        streams.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                        // The error code must be sent before the connection is closed.
                        let _ = poll_fn(|context| streams.poll_closed(context)).await;
                        return Ok(());
                    }
                },
                () = tokio::time::sleep(LOOK) => {
                    if connection.serving.stop.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
            }
        }
    })
}

/// Serves one stream. The client notices an error by its end, and the test by its result.
async fn answer(
    connection: Connection,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    end: mpsc::UnboundedSender<End>,
) -> Result<(), h2::Error> {
    let Connection { serving, number } = &connection;
    let request = read(request, *number).await?;
    serving.seen.lock().expect("what was seen").push(request.clone());
    match (serving.answer)(&request) {
        WebReply::Whole(status, mut headers, body) => {
            // The form of HTTP/1.1. Here it is not a header.
            let last = headers.iter().any(|(name, value)| name == "connection" && value == "close");
            headers.retain(|(name, _)| name != "connection");
            headers.push(("content-length".into(), body.len().to_string()));
            let bare = body.is_empty() || request.method == "HEAD";
            let mut stream = respond.send_response(head(status, &headers), bare)?;
            if !bare {
                stream.send_data(body.into(), true)?;
            }
            if last {
                let _ = end.send(End::Gracefully);
            }
        }
        WebReply::Endless(bytes, pause) => {
            let mut stream = respond.send_response(head(200, &Headers::new()), false)?;
            while !serving.stop.load(Ordering::Relaxed) {
                stream.reserve_capacity(bytes);
                let Some(room) = poll_fn(|context| stream.poll_capacity(context)).await else { break };
                stream.send_data(vec![b'x'; room?.min(bytes)].into(), false)?;
                tokio::time::sleep(pause).await;
            }
        }
        WebReply::Silence => {
            while !serving.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        }
        WebReply::BreaksOff => respond.send_reset(Reason::INTERNAL_ERROR),
        WebReply::HangsUp => {
            let _ = end.send(End::Abruptly);
            // The stream ends with the connection.
            std::future::pending::<()>().await;
        }
    }
    Ok(())
}

/// Reads the whole request. `:authority` is among its headers.
async fn read(request: Request<RecvStream>, connection: usize) -> Result<WebRequest, h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        stream.flow_control().release_capacity(bytes.len())?;
        body.extend_from_slice(&bytes);
    }
    let mut headers: Headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.extend(head.uri.authority().map(|authority| (":authority".into(), authority.to_string())));
    Ok(WebRequest {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers,
        body,
        at: Instant::now(),
        http2: true,
        connection,
    })
}

fn head(status: u16, headers: &Headers) -> Response<()> {
    let mut head = Response::builder().status(status);
    for (name, value) in headers {
        head = head.header(name, value);
    }
    head.body(()).expect("a response")
}
