//! Tests that WASI 0.2 links, but gives a guest nothing: no environment, no files, no network and no exit.

use super::*;
use crate::plugin::AttemptFailure;

/// The parts of WASI that a guest would try first, cut down to the functions that are called here. The daemon
/// links WASI function by function.
const WORLD: &str = "
package test:probe;

world probe {
    include posthouse:plugin/plugin@0.1.0;
    import wasi:cli/environment@0.2.0;
    import wasi:filesystem/preopens@0.2.0;
    import wasi:sockets/instance-network@0.2.0;
    import wasi:sockets/tcp-create-socket@0.2.0;
    import wasi:sockets/udp-create-socket@0.2.0;
    import wasi:sockets/ip-name-lookup@0.2.0;
    import wasi:http/outgoing-handler@0.2.0;
}

package wasi:cli@0.2.0 {
    interface environment {
        get-environment: func() -> list<tuple<string, string>>;
        get-arguments: func() -> list<string>;
        initial-cwd: func() -> option<string>;
    }
}

package wasi:filesystem@0.2.0 {
    interface types { resource descriptor; }
    interface preopens {
        use types.{descriptor};
        get-directories: func() -> list<tuple<descriptor, string>>;
    }
}

package wasi:sockets@0.2.0 {
    interface network {
        resource network;
        enum error-code {
            unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout,
            concurrency-conflict, not-in-progress, would-block, invalid-state, new-socket-limit,
            address-not-bindable, address-in-use, remote-unreachable, connection-refused,
            connection-reset, connection-aborted, datagram-too-large, name-unresolvable,
            temporary-resolver-failure, permanent-resolver-failure,
        }
        enum ip-address-family { ipv4, ipv6 }
    }
    interface instance-network {
        use network.{network};
        instance-network: func() -> network;
    }
    interface tcp { resource tcp-socket; }
    interface tcp-create-socket {
        use network.{error-code, ip-address-family};
        use tcp.{tcp-socket};
        create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
    }
    interface udp { resource udp-socket; }
    interface udp-create-socket {
        use network.{error-code, ip-address-family};
        use udp.{udp-socket};
        create-udp-socket: func(address-family: ip-address-family) -> result<udp-socket, error-code>;
    }
    interface ip-name-lookup {
        use network.{network, error-code};
        resource resolve-address-stream;
        resolve-addresses: func(network: borrow<network>, name: string)
            -> result<resolve-address-stream, error-code>;
    }
}

package wasi:http@0.2.0 {
    interface outgoing-handler { handle: func(); }
}
";

/// Members of `error-code`, by their position.
const ACCESS_DENIED: u32 = 1;
const PERMANENT_RESOLVER_FAILURE: u32 = 20;

/// A guest whose `handle` runs `body` and then logs `line`. Calls write their results to address 0.
fn probe(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module $probe
            (import "posthouse:plugin/log@0.1.0" "write" (func $log (param i32 i32 i32)))
            (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
            (import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
            (import "wasi:cli/environment@0.2.0" "initial-cwd" (func $cwd (param i32)))
            (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
            (import "wasi:sockets/instance-network@0.2.0" "instance-network" (func $network (result i32)))
            (import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $tcp (param i32 i32)))
            (import "wasi:sockets/udp-create-socket@0.2.0" "create-udp-socket" (func $udp (param i32 i32)))
            (import "wasi:sockets/ip-name-lookup@0.2.0" "resolve-addresses"
                (func $resolve (param i32 i32 i32 i32)))
            (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $http))
            (memory (export "memory") 16)
            (global $top (mut i32) (i32.const 8192))
            (data (i32.const 256) "line")
            (data (i32.const 272) "localhost")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.get $top)
                (global.set $top (i32.add (global.get $top) (local.get 3))))
            (func $expect (param $found i32) (param $expected i32)
                (if (i32.ne (local.get $found) (local.get $expected)) (then unreachable)))
            (func (export "posthouse:plugin/guest@0.1.0#describe") (result i32) (i32.const 512))
            (func (export "posthouse:plugin/guest@0.1.0#handle") (param i32) (result i32)
                (i64.store (i32.const 0) (i64.const 0x7f7f7f7f7f7f7f7f))
                {body}
                (call $log (i32.const 2) (i32.const 256) (i32.const 4))
                (i32.const 4096)))"#
    );
    in_world(&text, Some(WORLD))
}

/// Runs a probe that must reach its end.
async fn finds(bench: &Bench, what: &str, body: &str) {
    let report = bench.load(&probe(body), settings()).await.attempt().await;
    assert!(report.result.is_ok(), "{what}: {:?}", report.result);
    assert_eq!(report.logs.len(), 1, "{what}: the probe did not come to its end");
}

#[tokio::test]
async fn a_guest_finds_no_environment_and_no_files() {
    assert!(std::env::vars().next().is_some(), "there is an environment that could show");
    let bench = Bench::new(4);
    let none =
        |call: &str| format!("({call} (i32.const 0)) (call $expect (i32.load (i32.const 4)) (i32.const 0))");
    finds(&bench, "environment", &none("call $environment")).await;
    finds(&bench, "arguments", &none("call $arguments")).await;
    finds(&bench, "directories", &none("call $directories")).await;
    let cwd = "(call $cwd (i32.const 0)) (call $expect (i32.load8_u (i32.const 0)) (i32.const 0))";
    finds(&bench, "working directory", cwd).await;
}

#[tokio::test]
async fn a_guest_gets_no_socket_and_no_address() {
    let bench = Bench::new(4);
    let denied = |call: &str, error: u32| {
        format!(
            "({call}) (call $expect (i32.load8_u (i32.const 0)) (i32.const 1))
             (call $expect (i32.load8_u (i32.const 4)) (i32.const {error}))"
        )
    };
    for family in [0, 1] {
        for protocol in ["tcp", "udp"] {
            let call = format!("call ${protocol} (i32.const {family}) (i32.const 0)");
            finds(&bench, protocol, &denied(&call, ACCESS_DENIED)).await;
        }
    }
    let lookup = "call $resolve (call $network) (i32.const 272) (i32.const 9) (i32.const 0)";
    finds(&bench, "names", &denied(lookup, PERMANENT_RESOLVER_FAILURE)).await;
}

#[tokio::test]
async fn a_guest_that_calls_http_of_wasi_is_stopped_and_told_so() {
    let bench = Bench::new(4);
    let report = bench.load(&probe("(call $http)"), settings()).await.attempt().await;
    let Err(AttemptFailure::Stopped { error, .. }) = report.result else { panic!("{:?}", report.result) };
    assert!(error.contains("`wasi:http/outgoing-handler@0.2.0#handle` is not offered"), "{error}");
    assert!(report.logs.is_empty(), "it went on");
}
