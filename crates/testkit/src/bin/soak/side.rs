//! One end of the migrations: its server, if it has one, its databases, and the load on them.

use testkit::postgres::Stop;
use testkit::{Folder, Load, Writers, kiosk, mariadb, market, postgres, shop, till};

use crate::options::Engine;

pub(crate) enum Side {
    Postgres(postgres::Server),
    Mariadb(mariadb::Server),
    Sqlite(Folder),
}

impl Side {
    /// With fsync, as people run them.
    pub(crate) fn start(engine: Engine, version: u32) -> Side {
        match engine {
            Engine::Postgres => Side::Postgres(postgres::Server::version(version).start()),
            Engine::Mariadb => Side::Mariadb(mariadb::Server::builder().start()),
            Engine::Sqlite => Side::Sqlite(Folder::new("soak")),
        }
    }

    /// A new database, by its URL.
    pub(crate) fn create(&self, name: &str) -> String {
        match self {
            Side::Postgres(server) => {
                server.create_database(name);
                server.url(name)
            }
            Side::Mariadb(server) => {
                server.create_database(name);
                server.url(name)
            }
            Side::Sqlite(folder) => format!("sqlite:{}", file(folder, name)),
        }
    }

    /// Fills a new database with what this target can hold, and starts writers on it.
    pub(crate) fn write(&self, name: &str, rows: u32, load: Load, target: Engine) -> Writers {
        match self {
            Side::Postgres(server) if target == Engine::Postgres => {
                shop::create(&server.url(name), rows);
                shop::write(&server.url(name), load)
            }
            Side::Postgres(server) => {
                kiosk::create(&server.url(name), rows);
                kiosk::write(&server.url(name), load)
            }
            Side::Mariadb(server) => {
                market::create(server, name, rows);
                // A server that is killed between emptying a table and logging that has lost it for its own replicas, too.
                market::write(server, name, Load { truncate: false, ..load })
            }
            Side::Sqlite(folder) => {
                till::create(&file(folder, name), rows);
                till::write(&file(folder, name), load)
            }
        }
    }

    pub(crate) fn postgres(&self) -> Option<&postgres::Server> {
        match self {
            Side::Postgres(server) => Some(server),
            _ => None,
        }
    }

    /// Whether there was a server to restart.
    pub(crate) fn restart(&mut self, how: Stop) -> bool {
        match self {
            Side::Postgres(server) => server.restart(how),
            Side::Mariadb(server) => server.restart(how),
            Side::Sqlite(_) => return false,
        }
        true
    }

    /// The next round needs the room, and a slot that nobody reads would keep the log for ever.
    pub(crate) fn clear(&self, name: &str) {
        match self {
            Side::Postgres(server) => {
                let slots = format!(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '{name}' AND active;
                     SELECT pg_sleep(0.5);
                     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'"
                );
                server.run("postgres", &slots);
                server.run("postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
            }
            Side::Mariadb(server) => server.run("", &[&format!("DROP DATABASE `{name}`")]),
            Side::Sqlite(folder) => {
                let path = file(folder, name);
                for end in ["", "-wal", "-shm"] {
                    match std::fs::remove_file(format!("{path}{end}")) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            eprintln!("could not remove {path}{end}: {error}");
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

fn file(folder: &Folder, name: &str) -> String {
    folder.join(format!("{name}.db")).display().to_string()
}
