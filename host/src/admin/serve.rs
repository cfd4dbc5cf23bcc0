//! Takes connections, with bounds: how many there are at once, how long a header may take, and how long
//! the end may take.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// The most connections at once; the next one waits.
const CONNECTIONS: usize = 64;
/// How long the header of a request may take, and so how long a connection may say nothing.
const HEADER: Duration = Duration::from_secs(10);
/// How long what is under way at the end may take.
const ENDING: Duration = Duration::from_secs(5);

/// Answers requests until `shutdown` ends, and then those under way.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let (stopping, stopped) = watch::channel(());
    let mut open = JoinSet::new();
    loop {
        let next = async {
            let seat = Arc::clone(&seats).acquire_owned().await;
            (seat, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = open.join_next() => {}
            (seat, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let (router, stopped) = (router.clone(), stopped.clone());
                    open.spawn(async move {
                        let _seat = seat;
                        connection(stream, router, stopped).await;
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely; to ask again at once would only burn time.
                    tracing::warn!(%error, "the admin listener can't take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let _ = stopping.send(());
    let ended = async { while open.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(ENDING, ended).await;
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<()>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let told_to_stop = tokio::select! {
        // An error is the client's doing: it went away, or did not speak HTTP.
        _ = &mut connection => false,
        _ = stopped.changed() => true,
    };
    if told_to_stop {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::{Notify, oneshot},
    };

    use super::*;

    #[tokio::test]
    async fn a_request_under_way_is_answered_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (in_handler, may_leave) = (entered.clone(), leave.clone());
        let handler = move || async move {
            in_handler.notify_one();
            may_leave.notified().await;
            "done"
        };
        let (stop, stopping) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, Router::new().route("/", get(handler)), async move {
            let _ = stopping.await;
        }));

        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        entered.notified().await;
        // One that asks nothing does not hold up the end.
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();
        leave.notify_one();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
