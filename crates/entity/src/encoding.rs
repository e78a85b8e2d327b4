//! The storage encoding of values.
use crate::Value;
/// How deep values may nest.
pub const MAX_DEPTH: usize = 100;
/// Why a value cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Lists or dictionaries nest deeper than `MAX_DEPTH`.
    #[error("expected values nested at most {MAX_DEPTH} deep, found deeper ones")]
    TooDeep,
}
/// Appends `value`'s encoding.
pub fn encode(_value: &Value, _out: &mut Vec<u8>) -> Result<(), EncodeError> { unimplemented!() }
/// Takes one value off the front; panics on bytes that `encode` did not write.
pub fn decode(_from: &mut &[u8]) -> Value { unimplemented!() }
/// Steps over one value.
pub fn skip(_from: &mut &[u8]) { unimplemented!() }
