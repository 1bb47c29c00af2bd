//! Incremental hashing for either digest algorithm.

use gantry_model::Digest;
use sha2::{Digest as _, Sha256, Sha512};

use crate::{Error, Result};

/// A running hash.
#[derive(Clone)]
pub struct Hasher(Algorithm);

#[derive(Clone)]
enum Algorithm {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Algorithm::Sha256(_) => "Hasher(sha256)",
            Algorithm::Sha512(_) => "Hasher(sha512)",
        })
    }
}

impl Hasher {
    /// A SHA-256.
    #[must_use]
    pub fn sha256() -> Self {
        Self(Algorithm::Sha256(Sha256::new()))
    }

    /// The algorithm of a digest.
    #[must_use]
    pub fn for_digest(digest: &Digest) -> Self {
        match digest.algorithm() {
            "sha512" => Self(Algorithm::Sha512(Box::new(Sha512::new()))),
            _ => Self::sha256(),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Algorithm::Sha256(hash) => hash.update(bytes),
            Algorithm::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes added.
    #[must_use]
    pub fn finish(self) -> Digest {
        let text = match self.0 {
            Algorithm::Sha256(hash) => format!("sha256:{}", hex::encode(hash.finalize())),
            Algorithm::Sha512(hash) => format!("sha512:{}", hex::encode(hash.finalize())),
        };
        text.parse().expect("a hash in hex is a digest")
    }

    /// Checks the digest of all bytes added.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn verify(self, wanted: &Digest) -> Result<()> {
        let found = self.finish();
        if found == *wanted {
            return Ok(());
        }
        Err(Error::Mismatch {
            wanted: wanted.clone(),
            found,
        })
    }
}
