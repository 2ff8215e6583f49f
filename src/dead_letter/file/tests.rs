//! The file under faults that a disk, a crash and other processes cause.

use super::*;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    (folder, path)
}

fn line(n: usize) -> Bytes {
    Bytes::from(format!("{{\"n\":{n}}}\n"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn lines_are_appended_and_a_new_process_goes_on_behind_them() {
    let (_folder, path) = folder();
    let file = LetterFile::new(path.clone(), 1_000);
    file.ready().await.unwrap();
    file.append(line(1)).await.unwrap();
    LetterFile::new(path.clone(), 1_000).append(line(2)).await.unwrap();
    assert_eq!(read(&path), "{\"n\":1}\n{\"n\":2}\n");
}

#[tokio::test]
async fn a_line_that_a_crash_tore_is_cut_off_and_its_neighbours_stay() {
    for torn in ["{\"n\":2".to_owned(), "x".repeat(3 * LOOK_BACK)] {
        let (_folder, path) = folder();
        std::fs::write(&path, format!("{{\"n\":1}}\n{torn}")).unwrap();
        LetterFile::new(path.clone(), 1 << 30).append(line(3)).await.unwrap();
        assert_eq!(read(&path), "{\"n\":1}\n{\"n\":3}\n");
    }
    let (_folder, path) = folder();
    std::fs::write(&path, "torn from the first").unwrap();
    LetterFile::new(path.clone(), 1 << 30).append(line(3)).await.unwrap();
    assert_eq!(read(&path), "{\"n\":3}\n");
}

#[tokio::test]
async fn a_full_file_is_set_aside_under_the_next_number() {
    let (_folder, path) = folder();
    let file = LetterFile::new(path.clone(), 20);
    for n in 0..6 {
        file.append(line(n)).await.unwrap();
    }
    let aside: Vec<u32> = file.numbered().unwrap().into_iter().map(|(n, _)| n).collect();
    assert_eq!(aside, [1, 2]);
    assert_eq!(read(&with_number(&path, 1)), "{\"n\":0}\n{\"n\":1}\n");
    assert_eq!(read(&with_number(&path, 2)), "{\"n\":2}\n{\"n\":3}\n");
    assert_eq!(read(&path), "{\"n\":4}\n{\"n\":5}\n");
    // larger than the limit by itself: a file of its own, never refused
    let large = Bytes::from(format!("{}\n", "x".repeat(100)));
    file.append(large.clone()).await.unwrap();
    assert_eq!(read(&path).as_bytes(), &large);
    assert_eq!(file.numbered().unwrap().len(), 3);
}

#[tokio::test]
async fn while_another_process_writes_it_is_tried_again() {
    let (folder, path) = folder();
    let file = LetterFile::new(path.clone(), 1_000);
    let other = File::open(folder.path()).unwrap();
    other.try_lock().unwrap();
    assert!(matches!(file.append(line(1)).await, Err(InsertError::Retry(_))));
    drop(other);
    file.append(line(1)).await.unwrap();
    assert_eq!(read(&path), "{\"n\":1}\n");
}

#[tokio::test]
async fn a_missing_directory_needs_a_person_and_goes_on_when_it_is_there() {
    let (folder, _) = folder();
    let missing = folder.path().join("not/there");
    let file = LetterFile::new(missing.join("letters.jsonl"), 1_000);
    let Err(InsertError::AwaitFix(refusal)) = file.ready().await else { panic!("no such place") };
    assert!(refusal.message.contains("create the directory"), "{refusal}");
    std::fs::create_dir_all(&missing).unwrap();
    file.append(line(1)).await.unwrap();
}

#[test]
fn what_a_disk_refuses_needs_a_person_who_is_told_what_to_do() {
    for (kind, word) in [
        (ErrorKind::StorageFull, "room"),
        (ErrorKind::FileTooLarge, "limit"),
        (ErrorKind::PermissionDenied, "write there"),
    ] {
        let refused = refusal("cannot write", Path::new("/x"), &kind.into());
        let InsertError::AwaitFix(refusal) = refused else { panic!("{kind}") };
        assert!(refusal.message.contains(word) && refusal.message.contains("/x"), "{refusal}");
    }
}
