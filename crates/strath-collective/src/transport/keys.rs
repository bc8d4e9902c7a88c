//! The keys of one direction of a TLS session, one after the other.

use std::io::{self, ErrorKind};

use ring::aead::{AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::kernel::KernelConnection;
use rustls::{ConnectionTrafficSecrets, Error};

/// One direction's key, the number of its next record, and what makes the keys after it.
pub(super) struct Keys<Data> {
    pub(super) key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    pub(super) number: u64,
    next: KernelConnection<Data>,
}

impl<Data> std::fmt::Debug for Keys<Data> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<Data> Keys<Data> {
    /// The keys of a session that is established.
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets), next: KernelConnection<Data>) -> Result<Self, Error> {
        let (key, iv, number) = Self::read(secrets)?;
        Ok(Self { key, iv, number, next })
    }

    /// Goes on with the keys that come next, in the direction that `update` names.
    pub(super) fn update(
        &mut self,
        update: impl FnOnce(&mut KernelConnection<Data>) -> Result<(u64, ConnectionTrafficSecrets), Error>,
    ) -> io::Result<()> {
        let secrets = update(&mut self.next).and_then(Self::read);
        (self.key, self.iv, self.number) = secrets.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(())
    }

    fn read((number, secrets): (u64, ConnectionTrafficSecrets)) -> Result<(LessSafeKey, [u8; NONCE_LEN], u64), Error> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher that is not known here".into())),
        };
        let key =
            UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::General("a key of another length".into()))?;
        let iv = iv.as_ref().try_into().map_err(|_| Error::General("a nonce of another length".into()))?;
        Ok((LessSafeKey::new(key), iv, number))
    }

    /// The nonce of the next record: no two of a key are alike (RFC 8446, 5.3).
    pub(super) fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}
