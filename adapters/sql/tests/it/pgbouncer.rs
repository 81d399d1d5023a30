//! A PgBouncer of a test's own, in front of the PostgreSQL that tests run on.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use crate::support::TestDatabase;

/// The lines of a configuration that tests differ in.
pub(crate) struct Config<'a> {
    pub(crate) pool_mode: &'a str,
    /// Further lines.
    pub(crate) extra_lines: &'a str,
}

/// The default of PgBouncer: startup options are refused.
pub(crate) const TRANSACTION: Config<'_> = Config { pool_mode: "transaction", extra_lines: "" };
pub(crate) const SESSION: Config<'_> = Config { pool_mode: "session", extra_lines: "" };

/// A running PgBouncer, ended with its value.
pub(crate) struct PgBouncer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts one before the database of a place, and comes back as soon as it answers. `None`, and a word about it,
    /// where there is none to start and none is required.
    pub(crate) async fn start(what: &str, test_db: &TestDatabase, config: &Config<'_>) -> Option<Self> {
        if Command::new("pgbouncer").arg("--version").stdout(Stdio::null()).status().is_err() {
            let required =
                std::env::var("RESOURCEFUL_TEST_REQUIRE").is_ok_and(|names| names.contains("pgbouncer"));
            assert!(!required, "pgbouncer must be there: this run requires PgBouncer");
            println!("not run: {what}, for want of pgbouncer (tests/run installs it)");
            return None;
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(folder.path(), &configuration(folder.path(), port, test_db, config));
        let mut bouncer = Self { child, port, _folder: folder };
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(bouncer.child.try_wait().unwrap().is_none(), "pgbouncer ended");
            tokio::task::yield_now().await;
        }
        Some(bouncer)
    }

    /// A place's tables, reached through this pooler.
    pub(crate) fn pooled_database(&self, test_db: &TestDatabase) -> TestDatabase {
        test_db.with_url(&format!("postgres://pooled@127.0.0.1:{}/pooled", self.port))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration: one database, whose server connections are few enough to be shared.
fn configuration(folder: &Path, port: u16, test_db: &TestDatabase, config: &Config<'_>) -> String {
    let server = PgConnectOptions::from_str(&test_db.url).unwrap();
    let (host, server_port, user) = (server.get_host(), server.get_port(), server.get_username());
    let database = server.get_database().unwrap_or(user);
    let Config { pool_mode, extra_lines: lines } = config;
    let folder = folder.display();
    std::fs::write(format!("{folder}/users.txt"), "\"pooled\" \"\"\n").unwrap();
    format!(
        "[databases]\npooled = host={host} port={server_port} dbname={database} user={user}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = {folder}/users.txt\npool_mode = {pool_mode}\n\
         max_client_conn = 200\ndefault_pool_size = 20\n{lines}\n"
    )
}

/// Starts the program; root may not run it, and has another user do so.
fn spawn(folder: &Path, configuration: &str) -> Child {
    let file = folder.join("pgbouncer.ini");
    std::fs::write(&file, configuration).unwrap();
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = Command::new(if is_root { "setpriv" } else { "pgbouncer" });
    if is_root {
        let chowned = Command::new("chown").args(["-R", "postgres"]).arg(folder).status().unwrap();
        assert!(chowned.success());
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "pgbouncer"]);
    }
    command.arg("--quiet").arg(&file).current_dir("/").stdout(Stdio::null()).spawn().unwrap()
}
