use std::net::TcpListener;

mod server {
    use std::net::TcpListener;

    pub trait Serve {
        fn serve(&self) -> bool;
    }

    impl Serve for TcpListener {
        #[inline(never)]
        fn serve(&self) -> bool {
            let taken = self.accept().is_ok();
            std::hint::black_box(taken)
        }
    }

    #[inline(never)]
    pub fn by_closure<T: Serve>(listener: &T) -> bool {
        let ok = (0..1).map(|_| listener.serve()).all(|ok| ok);
        std::hint::black_box(ok)
    }
}

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let thread = std::thread::Builder::new().name("server".into());
    let thread = thread.spawn(move || server::by_closure(&listener)).unwrap();
    thread.join().unwrap();
}
