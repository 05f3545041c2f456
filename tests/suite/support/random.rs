//! Reproducible random numbers: a failing test prints its seed, and `CLAUDE_PEERS_TEST_SEED` sets it.

/// A source of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl From<u64> for Random {
    fn from(seed: u64) -> Self {
        Self(seed)
    }
}

impl Random {
    /// A source with the seed from the environment, or a new one.
    pub fn seeded() -> Self {
        let seed = match std::env::var("CLAUDE_PEERS_TEST_SEED") {
            Ok(seed) => seed.parse().expect("CLAUDE_PEERS_TEST_SEED is a number"),
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
        };
        Self(seed)
    }

    /// The seed that reproduces the numbers; call it before the first number.
    pub fn seed(&self) -> u64 {
        self.0
    }

    /// Another source for another thread.
    pub fn branch(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
