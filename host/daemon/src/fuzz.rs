//! The fuzz targets: one function for each reader of bytes from outside.
//!
//! Each accepts any bytes and panics if a promise is broken: a reader panics, two readers disagree, or a reader
//! accepts something that it must not. The functions are beside the readers (`fuzz.rs` of each folder), since
//! most readers are private. `fuzz/` contains the program for libFuzzer. The test below replays the committed
//! inputs of `fuzz/corpus/`.

use posthouse_database as database;
use posthouse_model as model;
use posthouse_model::config;

use crate::{ingress, listener};

pub use posthouse_database::fuzz::{SERVER, TABLES};

/// A function to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is also the name of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Runs it on one input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target { name: "carried", run: model::fuzz::carried },
    Target { name: "config", run: config::fuzz::config },
    Target { name: "envelope", run: ingress::fuzz::envelope },
    Target { name: "framing", run: listener::fuzz::framing },
    Target { name: "guard", run: database::fuzz::guard },
    Target { name: "postgres_frames", run: database::fuzz::postgres_frames },
    Target { name: "postgres_values", run: database::fuzz::postgres_values },
    Target { name: "signature", run: ingress::fuzz::signature },
];

#[cfg(test)]
mod tests {
    use std::fs;

    use posthouse_harness::{corpus, workspace};

    use super::TARGETS;

    #[test]
    fn every_input_of_the_corpus_keeps_every_promise() {
        for target in &TARGETS {
            let inputs = corpus(target.name);
            assert!(inputs.len() >= 3, "{} has {} inputs", target.name, inputs.len());
            for (name, input) in inputs {
                println!("{name}");
                (target.run)(&input);
            }
        }
    }

    #[test]
    fn every_folder_of_the_corpus_is_of_a_target() {
        let folder = workspace().join("fuzz/corpus");
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(TARGETS.iter().any(|target| name == target.name), "{name:?}");
        }
    }
}
