//! A port as it is written: a number, or a word.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is written where a listener's port belongs; [`crate::compile`] says whether it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSpec {
    /// A number.
    Number(u32),
    /// A word, such as `any`.
    Word(String),
}

impl Default for PortSpec {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl From<u32> for PortSpec {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for PortSpec {
    /// As it is typed: digits are a number.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Word(text.to_owned()), Self::Number)
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl Serialize for PortSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u32(*number),
            Self::Word(word) => serializer.serialize_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = PortSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<PortSpec, E> {
                u32::try_from(number).map(PortSpec::Number).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortSpec, E> {
                Ok(PortSpec::Word(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Written)
    }
}
