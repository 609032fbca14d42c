//! Fuzz targets of the engine. `README.md` lists them.

pub mod targets;

/// Makes the calling thread the first of rayon's. With one thread (RAYON_NUM_THREADS=1) no work is handed over, and a small input takes a fraction
/// of the time.
pub fn start() {
    rayon::ThreadPoolBuilder::new().use_current_thread().build_global().expect("nothing has used the threads yet");
}
