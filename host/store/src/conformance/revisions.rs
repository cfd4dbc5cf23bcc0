//! The history of a plugin's file.

use super::support::*;

pub(super) async fn each_content_of_a_file_is_remembered_with_its_end_and_not_for_ever(on: On) {
    let fixture = Fixture::new(on);
    let (plugin, other) = (fixture.plugin("a").await, fixture.plugin("b").await);
    let store = &fixture.store;
    store.revision_loaded(plugin, "11", "first").await.unwrap();
    store.revision_loaded(plugin, "11", "first").await.unwrap();
    store.revision_loaded(other, "99", "another's").await.unwrap();
    fixture.clock.advance(std::time::Duration::from_secs(60));
    store.revision_refused(plugin, "22", "it does not link").await.unwrap();
    store.revision_refused(plugin, "22", "it does not link").await.unwrap();
    store.revision_loaded(plugin, "33", "second").await.unwrap();
    store.revision_removed(plugin).await.unwrap();
    store.revision_loaded(plugin, "33", "second").await.unwrap();

    let told: Vec<_> = store
        .revisions(plugin)
        .await
        .unwrap()
        .into_iter()
        .map(|revision| (revision.sha256, revision.ending.unwrap_or_default()))
        .collect();
    let expected = [("33", ""), ("33", "removed"), ("22", "refused: it does not link"), ("11", "replaced")];
    assert_eq!(told, expected.map(|(sha256, ending)| (sha256.to_owned(), ending.to_owned())));

    for n in 0..80 {
        store.revision_refused(plugin, &n.to_string(), "no").await.unwrap();
    }
    let kept = store.revisions(plugin).await.unwrap();
    assert_eq!(kept.len(), 50);
    store.revision_loaded(plugin, "44", "third").await.unwrap();
    assert_eq!(store.revisions(other).await.unwrap().len(), 1);
}
