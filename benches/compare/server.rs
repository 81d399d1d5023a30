//! The two programs as child processes.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use resourceful_benches::client::Connection;

/// The token that both programs let write.
pub(crate) const TOKEN: &str = "token-of-benches";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Resourceful,
    Handwritten,
    /// Notes that everyone may read.
    Open,
    /// Notes that their owner alone may read, by a token.
    Owned,
}

impl Program {
    pub(crate) const BOTH: [Self; 2] = [Self::Resourceful, Self::Handwritten];
    pub(crate) const GUARDED: [Self; 2] = [Self::Open, Self::Owned];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Resourceful => "resourceful",
            Self::Handwritten => "hand-written",
            Self::Open => "open",
            Self::Owned => "owned",
        }
    }

    pub(crate) fn binary(self) -> Result<PathBuf, Box<dyn Error>> {
        let own = std::env::current_exe()?;
        let folder = own.parent().ok_or("the binary is in no folder")?;
        let path = match self {
            Self::Resourceful => folder.join("atlas"),
            Self::Handwritten => folder.join("handwritten"),
            Self::Open | Self::Owned => folder.join("guarded"),
        };
        if path.exists() {
            Ok(path)
        } else {
            Err(format!("{} is not built: benches/README.md has the command", path.display()).into())
        }
    }
}

/// A running program; it is killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a program and waits for its port; under valgrind where `callgrind` names its output.
    pub(crate) async fn start(
        program: Program,
        url: &str,
        callgrind: Option<&Path>,
    ) -> Result<Self, Box<dyn Error>> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let binary = program.binary()?;
        let mut command = match callgrind {
            None => Command::new(binary),
            Some(output) => {
                let mut command = Command::new("valgrind");
                command.args(["--tool=callgrind", "--quiet"]);
                command.arg(format!("--callgrind-out-file={}", output.display()));
                command.arg(binary);
                command
            }
        };
        let child = command
            .env("PORT", port.to_string())
            .env("DATABASE_URL", url)
            .env("ATLAS_TOKEN", TOKEN)
            .env("GUARD", if program == Program::Owned { "owner" } else { "none" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(300);
        while Connection::open(port).await.is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{} ended with {status}", program.name()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} did not open its port", program.name()).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(server)
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) -> Result<(), Box<dyn Error>> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// Time on a processor so far, in microseconds: user and system, of all threads.
    pub(crate) fn processor_time(&self) -> Result<f64, Box<dyn Error>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold spaces: count from its end. Ticks are a hundredth of a second on Linux.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after.split_whitespace().collect();
        let user: f64 = fields.get(11).ok_or("stat is short")?.parse()?;
        let system: f64 = fields.get(12).ok_or("stat is short")?.parse()?;
        Ok((user + system) * 10_000.0)
    }

    /// Resident memory, in MiB.
    pub(crate) fn memory(&self) -> Result<f64, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `stop`; otherwise a failed run leaves nothing behind.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
