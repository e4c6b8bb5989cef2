//! The few primitives that the packed format is made of: varints, texts, runs, frames.

use super::CodecError;
use recount_model::ReasonCode;
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

/// Larger frames are refused before memory is taken for them.
const FRAME_BYTES_MAX: u64 = 1 << 32;

/// Signed to unsigned, small magnitudes first: 0, -1, 1, -2 … become 0, 1, 2, 3 …
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Writes the uncompressed part of a frame.
#[derive(Default)]
pub(super) struct Packer(pub(super) Vec<u8>);

impl Packer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn wide_varint(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.varint(zigzag(value));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Pairs of value and how often it repeats, until all are told. The reader knows how many there are.
    pub(super) fn runs(&mut self, values: impl Iterator<Item = u64>) {
        let mut open: Option<(u64, u64)> = None;
        for value in values {
            match &mut open {
                Some((same, length)) if *same == value => *length += 1,
                _ => {
                    self.put_run(open);
                    open = Some((value, 1));
                }
            }
        }
        self.put_run(open);
    }

    fn put_run(&mut self, run: Option<(u64, u64)>) {
        if let Some((value, length)) = run {
            self.varint(value);
            self.varint(length);
        }
    }
}

/// Reads what a [`Packer`] wrote. Never reads past the end, never takes memory that the input's own
/// length does not justify.
pub(super) struct Unpacker<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Unpacker<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, CodecError> {
        let (first, rest) = self.rest.split_first().ok_or(CodecError::Damaged("it ends early"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn varint(&mut self) -> Result<u64, CodecError> {
        let wide = self.wide_varint()?;
        u64::try_from(wide).map_err(|_| CodecError::Damaged("a number is too large"))
    }

    pub(super) fn wide_varint(&mut self) -> Result<u128, CodecError> {
        let mut value = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Damaged("a number does not end"))
    }

    pub(super) fn small(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.varint()?).map_err(|_| CodecError::Damaged("a number is too large"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, CodecError> {
        Ok(unzigzag(self.varint()?))
    }

    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], CodecError> {
        let length = usize::try_from(length).map_err(|_| CodecError::Damaged("a length is too large"))?;
        if length > self.rest.len() {
            return Err(CodecError::Damaged("a length goes past the end"));
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let length = self.varint()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Damaged("a text is not UTF-8"))
    }

    pub(super) fn code(&mut self) -> Result<ReasonCode, CodecError> {
        ReasonCode::new(self.text()?).map_err(|_| CodecError::Damaged("a reason code is none"))
    }

    /// A count of things that each take at least one byte.
    pub(super) fn count(&mut self) -> Result<usize, CodecError> {
        let count = self.varint()?;
        if count > self.rest.len() as u64 {
            return Err(CodecError::Damaged("a count goes past the end"));
        }
        Ok(count as usize)
    }

    /// `total` values as [`Packer::runs`] wrote them.
    pub(super) fn runs(&mut self, total: usize) -> Result<Vec<u64>, CodecError> {
        let mut values = Vec::with_capacity(total);
        while values.len() < total {
            let value = self.varint()?;
            let length = self.varint()?;
            if length == 0 || length > (total - values.len()) as u64 {
                return Err(CodecError::Damaged("a run has a wrong length"));
            }
            values.resize(values.len() + length as usize, value);
        }
        Ok(values)
    }

    pub(super) fn flags(&mut self, total: usize) -> Result<Vec<bool>, CodecError> {
        let word = |v: u64| match v {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Damaged("a truth value is neither 0 nor 1")),
        };
        self.runs(total)?.into_iter().map(word).collect()
    }

    pub(super) fn done(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Damaged("something follows the end")) }
    }
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// One zstd frame, level 1.
pub(super) fn compress(raw: &[u8]) -> Vec<u8> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = slot.get_or_insert_with(|| {
            Compressor::new(1).expect("level 1 is known to every zstd, and a context needs only memory")
        });
        compressor.compress(raw).expect("the output buffer has the size that zstd asks for at most")
    })
}

/// The inverse; `raw_bytes` is what the frame must come to.
pub(super) fn decompress(packed: &[u8], raw_bytes: u64) -> Result<Vec<u8>, CodecError> {
    if raw_bytes > FRAME_BYTES_MAX {
        return Err(CodecError::Damaged("a length is too large"));
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|_| CodecError::Damaged("zstd has no memory"))?),
        };
        let raw = decompressor
            .decompress(packed, raw_bytes as usize)
            .map_err(|_| CodecError::Damaged("zstd can't read it"))?;
        if raw.len() as u64 != raw_bytes {
            return Err(CodecError::Damaged("it unpacks to another length"));
        }
        Ok(raw)
    })
}

/// The first 8 bytes of BLAKE3 over the parts.
pub(super) fn checksum(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    short
}
