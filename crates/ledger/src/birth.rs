//! Making a ledger, and putting its folder in order when it is opened.

use crate::opener::{Opener, failed, refused};
use crate::replica::{self, Birth};
use crate::schema;
use crate::settings::LedgerSettings;
use crate::shelf::{CATALOG, CatalogView};
use crate::store::LedgerError;
use crate::writer::in_transaction;
use rusqlite::{Connection, params};

/// The file of a segment that batches are appended to.
pub(crate) fn segment_file(no: i64) -> String {
    format!("segment-{no:06}.db")
}

/// The file of the same segment once it is sealed.
pub(crate) fn sealed_file(no: i64) -> String {
    format!("segment-{no:06}-sealed.db")
}

/// Opens the catalog; makes it, and the first segment, where there is none.
pub(crate) fn open_catalog(opener: &Opener, settings: &LedgerSettings) -> Result<Connection, LedgerError> {
    let path = opener.path(CATALOG);
    if !settings.files.exists(&path).map_err(refused(&path))? {
        refuse_orphaned_segments(opener, settings)?;
    }
    let catalog = opener.write(CATALOG)?;
    let known = "SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'";
    let tables: i64 = catalog.query_row(known, [], |row| row.get(0)).map_err(failed(CATALOG))?;
    if tables == 0 {
        refuse_orphaned_segments(opener, settings)?;
        make(opener, settings, &catalog)?;
    }
    Ok(catalog)
}

fn make(opener: &Opener, settings: &LedgerSettings, catalog: &Connection) -> Result<(), LedgerError> {
    let birth = match (&settings.replica_of, settings.birth) {
        (Some(of), _) => of.birth.clone(),
        (None, Some(random)) => Birth::of(&random),
        (None, None) => Birth::new()?,
    };
    let id = birth.id.0;
    make_segment(opener, settings, 1, &id)?;
    in_transaction(CATALOG, catalog, || {
        catalog.execute_batch(&schema::catalog())?;
        catalog.execute(
            "INSERT INTO ledger VALUES (?1,?2,?3)",
            params![id, schema::FORMAT, birth.identity_key],
        )?;
        if let Some(of) = &settings.replica_of {
            replica::make_table(catalog, of)?;
        }
        let sql = "INSERT INTO segment (segment_no, state, file, ordinal_from) VALUES (1, 0, ?1, 1)";
        catalog.execute(sql, params![segment_file(1)])?;
        Ok(())
    })?;
    settings.files.sync_dir(&opener.folder).map_err(refused(&opener.folder))
}

/// Makes an empty segment's file durable; the catalog does not name it yet.
pub(crate) fn make_segment(
    opener: &Opener,
    settings: &LedgerSettings,
    no: i64,
    ledger_id: &str,
) -> Result<Connection, LedgerError> {
    let file = segment_file(no);
    remove_database(opener, settings, &file)?;
    let connection = opener.write(&file)?;
    fill(&file, &connection, no, ledger_id, false)?;
    settings.files.sync_dir(&opener.folder).map_err(refused(&opener.folder))?;
    Ok(connection)
}

/// Makes the tables of a segment.
pub(crate) fn fill(
    file: &str,
    connection: &Connection,
    no: i64,
    ledger_id: &str,
    sealed: bool,
) -> Result<(), LedgerError> {
    in_transaction(file, connection, || {
        connection.execute_batch(&schema::segment(sealed))?;
        connection
            .execute("INSERT INTO segment_info VALUES (?1,?2,?3)", params![schema::FORMAT, no, ledger_id])?;
        Ok(())
    })
}

pub(crate) fn random_bytes() -> Result<[u8; 48], LedgerError> {
    let mut random = [0; 48];
    // The kernel gives up to 256 bytes at once, whole; it is asked without a file, which a bare root may not have.
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| LedgerError::Unwritable(format!("the kernel gives no random bytes: {error}")))?;
    Ok(random)
}

/// Removes a database with its logs.
pub(crate) fn remove_database(
    opener: &Opener,
    settings: &LedgerSettings,
    file: &str,
) -> Result<(), LedgerError> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let path = opener.path(&format!("{file}{ending}"));
        settings.files.remove(&path).map_err(refused(&path))?;
    }
    Ok(())
}

/// Without a catalog nobody can say what segments mean: a new ledger must not be made over them. An empty
/// first segment is what a crash while making one leaves.
fn refuse_orphaned_segments(opener: &Opener, settings: &LedgerSettings) -> Result<(), LedgerError> {
    let names = settings.files.list(&opener.folder).map_err(refused(&opener.folder))?;
    let mut segments: Vec<String> =
        names.into_iter().filter(|n| n.starts_with("segment-") && n.ends_with(".db")).collect();
    segments.sort();
    let orphaned = |name: &str| {
        LedgerError::Corrupt(format!(
            "{CATALOG} is missing beside {name}: restore it, or name another folder"
        ))
    };
    for name in &segments {
        if *name != segment_file(1) {
            return Err(orphaned(name));
        }
        let connection = opener.write(name)?;
        let known = "SELECT count(*) FROM sqlite_schema WHERE name = 'batch'";
        let tables: i64 = connection.query_row(known, [], |row| row.get(0)).map_err(failed(name))?;
        let held = match tables {
            0 => 0,
            _ => connection
                .query_row("SELECT (SELECT count(*) FROM batch) + (SELECT count(*) FROM body)", [], |row| {
                    row.get::<_, i64>(0)
                })
                .map_err(failed(name))?,
        };
        if held > 0 {
            return Err(orphaned(name));
        }
    }
    Ok(())
}

/// Removes segment files that the catalog does not name: leftovers of a crash while sealing or dropping.
pub(crate) fn remove_strangers(
    opener: &Opener,
    settings: &LedgerSettings,
    view: &CatalogView,
) -> Result<(), LedgerError> {
    let names = settings.files.list(&opener.folder).map_err(refused(&opener.folder))?;
    for name in names.iter().filter(|name| name.starts_with("segment-")) {
        let Some(stem) = name.find(".db").map(|at| &name[..at + 3]) else { continue };
        if !view.segments.iter().any(|segment| segment.file == stem) {
            let path = opener.path(name);
            settings.files.remove(&path).map_err(refused(&path))?;
        }
    }
    Ok(())
}
