//! States found, kept, written, read again, refused and forgotten; without llama.cpp.

use super::*;
use pretty_assertions::assert_eq;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PLENTY: Limits = Limits { memory: 1 << 30, disk: 1 << 30 };
const ON_DISK_ONLY: Limits = Limits { memory: 0, disk: 1 << 30 };

fn key(model: &str) -> Arc<ModelKey> {
    Arc::new(ModelKey {
        engine: crate::VERSION.to_owned(),
        model: model.to_owned(),
        context: 8192,
        kv: "f16/f16".to_owned(),
    })
}

/// `length` tokens that begin with `first`.
fn tokens(first: TokenId, length: usize) -> Vec<TokenId> {
    (0..).map(|i| first + i).take(length).collect()
}

fn state(model: &str, tokens: &[TokenId], session: Option<&str>) -> State {
    let bytes = tokens.iter().flat_map(|t| t.to_le_bytes()).cycle().take(1000).collect();
    State { model: key(model), tokens: tokens.to_vec(), session: session.map(Arc::from), bytes }
}

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("kv")
    }

    fn cache(&self, limits: Limits) -> Cache {
        Cache::new(self.folder(), limits)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            std::fs::read_dir(self.folder()).into_iter().flatten().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn written(cache: &Cache) {
    cache.flush(Duration::from_secs(30));
}

/// What is found for a prompt: where, and how much of it.
fn found(cache: &Cache, model: &str, prompt: &[TokenId]) -> Option<(Place, usize)> {
    cache.find(&key(model), prompt, 0).map(|found| (found.place, found.reused))
}

#[test]
fn the_longest_beginning_is_found_and_memory_comes_first() {
    let place = Folder::new();
    let cache = place.cache(PLENTY);
    cache.keep(state("m", &tokens(0, 100), None));
    cache.keep(state("m", &[tokens(0, 60), tokens(500, 140)].concat(), None));
    let prompt = [tokens(0, 60), tokens(500, 300)].concat();
    assert_eq!(found(&cache, "m", &prompt), Some((Place::Memory, 200)));
    assert_eq!(
        found(&cache, "m", &tokens(0, 100)),
        Some((Place::Memory, 99)),
        "one token is left to evaluate"
    );
    assert_eq!(found(&cache, "other", &prompt), None);
    let kept = cache.find(&key("m"), &prompt, 0).unwrap();
    assert_eq!(cache.get(&kept, &key("m")).unwrap().tokens.len(), 200);
    assert_eq!(cache.find(&key("m"), &prompt, 199), None, "the slot has nearly as much");
    assert_eq!(found(&cache, "m", &tokens(0, 20)), None, "that little is as quick to compute");
    // The same one on disk too: memory is nearer.
    cache.keep_and_write(state("m", &tokens(0, 300), Some("s")));
    written(&cache);
    assert_eq!(found(&cache, "m", &tokens(0, 400)), Some((Place::Memory, 300)));
}

#[test]
fn a_conversation_that_went_on_takes_the_place_of_itself() {
    let place = Folder::new();
    let cache = place.cache(PLENTY);
    for length in [100, 200, 300] {
        cache.keep_and_write(state("m", &tokens(0, length), Some("s")));
        written(&cache);
    }
    assert_eq!(place.files().len(), 1);
    let one = state("m", &tokens(0, 300), Some("s"));
    assert_eq!(cache.used().0, one.size());
    // Another session that begins the same is another one.
    cache.keep(state("m", &tokens(0, 400), Some("t")));
    assert_eq!(found(&cache, "m", &tokens(0, 350)), Some((Place::Memory, 349)));
    assert!(cache.used().0 > one.size() * 2);
    // Without a session only what goes on from it does.
    let place = Folder::new();
    let cache = place.cache(PLENTY);
    cache.keep(state("m", &tokens(0, 300), None));
    cache.keep(state("m", &[tokens(0, 280), tokens(900, 200)].concat(), None));
    assert_eq!(found(&cache, "m", &tokens(0, 301)), Some((Place::Memory, 300)));
    let before = cache.used().0;
    cache.keep(state("m", &tokens(0, 310), None));
    assert_eq!(cache.used().0, before + 40, "ten tokens of four bytes more");
}

#[test]
fn what_was_used_longest_ago_goes_from_memory_to_disk() {
    let place = Folder::new();
    let size = state("m", &tokens(0, 100), None).size();
    let cache = place.cache(Limits { memory: 2 * size, disk: 1 << 20 });
    cache.keep(state("m", &tokens(0, 100), Some("a")));
    cache.keep(state("m", &tokens(1000, 100), Some("b")));
    // `a` is used, so `b` has to go.
    let a = cache.find(&key("m"), &tokens(0, 100), 0).unwrap();
    assert!(cache.get(&a, &key("m")).is_some());
    cache.keep(state("m", &tokens(2000, 100), Some("c")));
    written(&cache);
    assert_eq!(found(&cache, "m", &tokens(0, 101)), Some((Place::Memory, 100)));
    assert_eq!(found(&cache, "m", &tokens(1000, 101)), Some((Place::Disk, 100)));
    assert_eq!(found(&cache, "m", &tokens(2000, 101)), Some((Place::Memory, 100)));
    // Without a session nothing goes to disk.
    cache.keep(state("m", &tokens(3000, 100), None));
    cache.keep(state("m", &tokens(4000, 100), None));
    cache.keep(state("m", &tokens(5000, 100), None));
    written(&cache);
    assert_eq!(found(&cache, "m", &tokens(3000, 101)), None);
    assert_eq!(found(&cache, "m", &tokens(0, 101)), Some((Place::Disk, 100)));
    assert!(cache.used().0 <= 2 * size);
}

#[test]
fn the_next_engine_finds_what_was_written_and_reads_the_same() {
    let place = Folder::new();
    let original = state("m", &tokens(0, 500), Some("2026-1"));
    let cache = place.cache(ON_DISK_ONLY);
    cache.keep(state("m", &tokens(0, 500), Some("2026-1")));
    written(&cache);
    drop(cache);
    let cache = place.cache(PLENTY);
    let found = cache.find(&key("m"), &tokens(0, 600), 0).unwrap();
    assert_eq!((found.place, found.reused, found.tokens), (Place::Disk, 500, 500));
    assert_eq!(*cache.get(&found, &key("m")).unwrap(), original);
    assert_eq!(*cache.fetch(found, &key("m")).wait().unwrap(), original);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.folder()), mode(&place.files()[0])), (0o700, 0o600));
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_deleted_and_not_used() {
    let place = Folder::new();
    let cache = place.cache(ON_DISK_ONLY);
    cache.keep(state("m", &tokens(0, 500), Some("s")));
    written(&cache);
    let path = place.files().remove(0);
    let good = std::fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [good.as_slice(), b"x"].concat();
    let cases: Vec<(String, Vec<u8>)> = [
        ("empty".to_owned(), Vec::new()),
        ("longer".to_owned(), longer),
        ("all zero".to_owned(), vec![0; good.len()]),
        ("a huge header".to_owned(), [b"DUETKV\x00\x01".as_slice(), &[0xff; 100]].concat()),
    ]
    .into_iter()
    .chain((0..good.len()).step_by(97).map(|at| (format!("byte {at} flipped"), flipped(at))))
    .chain((1..good.len()).step_by(211).map(|at| (format!("cut at {at}"), good[..at].to_vec())))
    .chain([("last byte flipped".to_owned(), flipped(good.len() - 1))])
    .collect();
    for (name, bytes) in cases {
        // Found by a running engine, and by the next one.
        for is_known in [true, false] {
            std::fs::write(&path, &good).unwrap();
            let cache = place.cache(ON_DISK_ONLY);
            if is_known {
                assert_eq!(found(&cache, "m", &tokens(0, 501)), Some((Place::Disk, 500)));
            }
            std::fs::write(&path, &bytes).unwrap();
            let state = cache.find(&key("m"), &tokens(0, 501), 0).and_then(|f| cache.get(&f, &key("m")));
            assert_eq!(state, None, "{name}");
            assert_eq!(place.files().len(), 0, "{name}");
            assert_eq!(found(&cache, "m", &tokens(0, 501)), None, "{name}");
        }
    }
}

#[test]
fn a_folder_that_others_can_reach_is_not_read() {
    let place = Folder::new();
    let cache = place.cache(ON_DISK_ONLY);
    cache.keep(state("m", &tokens(0, 500), Some("s")));
    written(&cache);
    std::fs::set_permissions(place.folder(), std::fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(found(&place.cache(ON_DISK_ONLY), "m", &tokens(0, 501)), None);
    std::fs::set_permissions(place.folder(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(found(&place.cache(ON_DISK_ONLY), "m", &tokens(0, 501)), Some((Place::Disk, 500)));
}

#[test]
fn files_of_another_model_or_engine_are_not_used() {
    let place = Folder::new();
    let cache = place.cache(ON_DISK_ONLY);
    cache.keep(state("m", &tokens(0, 100), Some("s")));
    let mut old = state("m", &tokens(0, 200), Some("t"));
    old.model = Arc::new(ModelKey { engine: "0.0.0".to_owned(), ..(*key("m")).clone() });
    cache.keep(old);
    written(&cache);
    assert_eq!(place.files().len(), 2);
    let next = place.cache(ON_DISK_ONLY);
    assert_eq!(found(&next, "n", &tokens(0, 101)), None);
    let smaller = ModelKey { context: 4096, ..(*key("m")).clone() };
    assert_eq!(next.find(&smaller, &tokens(0, 101), 0), None, "another context");
    assert_eq!(place.files().len(), 1, "of another version nothing is kept");
    // One that is put in the place of another is told by its header.
    let known = next.find(&key("m"), &tokens(0, 101), 0).unwrap();
    assert_eq!(next.get(&known, &key("n")), None);
    assert_eq!(place.files().len(), 0);
}

#[test]
fn the_disk_has_a_bound_too() {
    let place = Folder::new();
    let one = file::file_bytes(&state("m", &tokens(0, 100), Some("s0")), "s0");
    let cache = place.cache(Limits { memory: 0, disk: 3 * one + one / 2 });
    for n in 0..6 {
        cache.keep(state("m", &tokens(n * 1000, 100), Some(&format!("s{n}"))));
        written(&cache);
        assert!(cache.used().1 <= 3 * one + one / 2);
    }
    assert_eq!(place.files().len(), 3);
    assert_eq!(found(&cache, "m", &tokens(2000, 101)), None);
    assert_eq!(found(&cache, "m", &tokens(3000, 101)), Some((Place::Disk, 100)));
    // One that could never fit does not push the others out.
    cache.keep(state("m", &tokens(50_000, 5000), Some("large")));
    written(&cache);
    assert_eq!(place.files().len(), 3);
    let off = place.cache(Limits { memory: 0, disk: 0 });
    off.keep_and_write(state("m", &tokens(0, 100), Some("s")));
    written(&off);
    assert_eq!((found(&off, "m", &tokens(3000, 101)), off.used()), (None, (0, 0)));
}

#[test]
fn a_disk_that_refuses_is_survived() {
    let place = Folder::new();
    // A file is where the folder should be: every write fails.
    std::fs::write(place.folder(), "in the way").unwrap();
    let cache = place.cache(PLENTY);
    for n in 0..3 {
        cache.keep_and_write(state("m", &tokens(n * 1000, 100), Some("s")));
    }
    written(&cache);
    assert_eq!(found(&cache, "m", &tokens(2000, 101)), Some((Place::Memory, 100)), "memory goes on");
    // When it is there again, it is used again.
    std::fs::remove_file(place.folder()).unwrap();
    cache.write(state("m", &tokens(9000, 100), Some("s")));
    written(&cache);
    assert_eq!(place.files().len(), 1);
}

/// Writing fails in the middle, as on a full disk: nothing half is left.
#[test]
fn a_disk_that_is_full_keeps_no_half_file() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let state = state("m", &tokens(0, 100), Some("s"));
    let whole = usize::try_from(file::file_bytes(&state, "s")).unwrap();
    assert!(file::write(&mut Full(whole), &state, "s").is_ok(), "the length is told beforehand");
    for room in [0, 100, whole / 2, whole - 1] {
        assert_eq!(
            file::write(&mut Full(room), &state, "s").unwrap_err().kind(),
            std::io::ErrorKind::StorageFull
        );
    }
    // What an engine that was killed in the middle leaves is cleared away.
    let place = Folder::new();
    crate::paths::create_private(&place.folder()).unwrap();
    std::fs::write(place.folder().join("half.new"), "DUETKV").unwrap();
    std::fs::write(place.folder().join("notes.txt"), "not ours").unwrap();
    assert_eq!(place.cache(PLENTY).used(), (0, 0));
    assert_eq!(place.files(), [place.folder().join("notes.txt")]);
}

#[test]
fn a_session_is_forgotten_everywhere() {
    let place = Folder::new();
    let cache = place.cache(PLENTY);
    cache.keep_and_write(state("m", &tokens(0, 100), Some("mine")));
    cache.keep_and_write(state("n", &tokens(0, 100), Some("mine")));
    cache.keep_and_write(state("m", &tokens(1000, 100), Some("other")));
    written(&cache);
    assert_eq!(place.files().len(), 3);
    assert_eq!(cache.forget("mine"), 4);
    assert_eq!(place.files().len(), 1);
    assert_eq!(found(&cache, "m", &tokens(0, 101)), None);
    assert_eq!(found(&cache, "m", &tokens(1000, 101)), Some((Place::Memory, 100)));
    assert_eq!(cache.forget("mine"), 0);
    // Also what is only on its way to the disk.
    for n in 0..20 {
        cache.write(state("m", &tokens(n * 1000, 100), Some("quick")));
    }
    let _ = cache.forget("quick");
    written(&cache);
    assert_eq!(place.files().len(), 1);
}
