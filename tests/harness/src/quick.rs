//! Keeps slow servers out of the quick loop.

/// Fails a test that needs a slow server and runs under nextest's profile `quick`, which is for tests without
/// one.
///
/// # Panics
/// Under that profile.
#[track_caller]
pub(crate) fn refuse_in_quick_loop(what: &str) {
    let profile = std::env::var("NEXTEST_PROFILE");
    assert!(
        profile.as_deref() != Ok("quick"),
        "this test needs {what}: leave it out of the profile `quick` in .config/nextest.toml"
    );
}
