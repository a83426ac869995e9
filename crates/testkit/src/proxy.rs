//! A TCP proxy on loopback that makes the network bad: cut, refuse, stall, delay.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Passes bytes on until told otherwise. Dropping it cuts everything.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

struct State {
    to: u16,
    closed: AtomicBool,
    refusing: AtomicBool,
    stalled: AtomicBool,
    delay_ms: AtomicU64,
    /// Bytes from the server until everything is cut, once. `u64::MAX`: never.
    budget_bytes: AtomicU64,
    cuts: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a proxy");
        listener.set_nonblocking(true).expect("poll the proxy");
        let port = listener.local_addr().expect("know the proxy's port").port();
        let state = Arc::new(State {
            to,
            closed: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            budget_bytes: AtomicU64::new(u64::MAX),
            cuts: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        let listener = thread::spawn(move || accept(&listener, &shared));
        Proxy { port, state, listener: Some(listener) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks every connection; new ones are welcome.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Breaks every connection, and each new one as soon as it comes, until [`Proxy::heal`].
    pub fn refuse(&self) {
        self.state.refusing.store(true, Ordering::SeqCst);
        self.state.cut();
    }

    /// Connections stay open and nothing moves, until [`Proxy::heal`].
    pub fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.state.refusing.store(false, Ordering::SeqCst);
        self.state.stalled.store(false, Ordering::SeqCst);
        self.state.delay_ms.store(0, Ordering::SeqCst);
    }

    /// Every block of bytes waits this long, in both directions.
    pub fn delay(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).expect("a short delay");
        self.state.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Cuts everything once, in the middle of whatever the server is sending after so many more bytes.
    pub fn cut_after(&self, bytes: u64) {
        self.state.budget_bytes.store(bytes, Ordering::SeqCst);
    }

    /// How often everything was cut.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.state.cut();
        if let Some(listener) = self.listener.take()
            && listener.join().is_err()
        {
            eprintln!("the proxy's listener panicked");
        }
    }
}

impl State {
    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        for stream in self.streams.lock().expect("the proxy's streams").drain(..) {
            // Fails when the peer was faster to close it.
            if let Err(error) = stream.shutdown(Shutdown::Both)
                && error.kind() != ErrorKind::NotConnected
            {
                eprintln!("could not cut a connection: {error}");
            }
        }
    }

    fn spend(&self, bytes: u64) {
        let budget = self.budget_bytes.load(Ordering::SeqCst);
        if budget == u64::MAX {
            return;
        }
        if budget <= bytes {
            self.budget_bytes.store(u64::MAX, Ordering::SeqCst);
            self.cut();
        } else {
            self.budget_bytes.store(budget - bytes, Ordering::SeqCst);
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    while !state.closed.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((client, _)) => {
                if !state.refusing.load(Ordering::SeqCst) {
                    join(client, state);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("the proxy cannot accept: {error}"),
        }
    }
}

/// Joins a client to the server, by one thread a direction. A server that is away closes the client.
fn join(client: TcpStream, state: &Arc<State>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", state.to)) else { return };
    for stream in [&client, &server] {
        stream.set_nonblocking(false).expect("block on a stream");
        stream.set_nodelay(true).expect("send at once");
    }
    let twin = |stream: &TcpStream| stream.try_clone().expect("share a stream");
    state.streams.lock().expect("the proxy's streams").extend([twin(&client), twin(&server)]);
    let (to_server, to_client) = (Arc::clone(state), Arc::clone(state));
    let (client_in, server_out) = (twin(&client), twin(&server));
    thread::spawn(move || pass(client_in, server_out, |_| {}, &to_server));
    thread::spawn(move || pass(server, client, |bytes| to_client.spend(bytes), &to_client));
}

fn pass(mut from: TcpStream, mut to: TcpStream, passed: impl Fn(u64), state: &State) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        let delay_ms = state.delay_ms.load(Ordering::SeqCst);
        if delay_ms > 0 {
            thread::sleep(Duration::from_millis(delay_ms));
        }
        while state.stalled.load(Ordering::SeqCst) && !state.closed.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed(count as u64);
    }
    // One side ended: so does the other. An error means that it has already.
    for stream in [from, to] {
        if let Err(error) = stream.shutdown(Shutdown::Both)
            && error.kind() != ErrorKind::NotConnected
        {
            eprintln!("could not close a connection: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while let Ok(count) = stream.read(&mut buffer) {
                        if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 4];
        stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"ping"
    }

    #[test]
    fn passes_cuts_refuses_and_heals() {
        let proxy = Proxy::start(echo());
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        let mut stream = connect();
        assert!(ask(&mut stream));
        proxy.cut();
        assert!(!ask(&mut stream), "the connection was cut");
        assert!(ask(&mut connect()), "a new one is welcome");
        proxy.refuse();
        assert!(!ask(&mut connect()), "refused");
        proxy.heal();
        assert!(ask(&mut connect()), "healed");
        proxy.cut_after(6);
        let mut stream = connect();
        assert!(ask(&mut stream), "within the budget");
        ask(&mut stream);
        assert!(!ask(&mut stream), "the budget is spent");
    }
}
