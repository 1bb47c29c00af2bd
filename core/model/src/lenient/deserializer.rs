//! A serde deserializer over a JSON value with Go's tolerance.

use std::any::type_name;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use super::names::go_name;
use super::{Error, TypeError};

/// The value to read.
pub(super) struct Lenient(pub(super) Value);

impl Lenient {
    /// The error for a value that is not of Go's type `wanted`.
    fn mismatch(&self, wanted: &str) -> Error {
        let found = match &self.0 {
            Value::Null => "null".into(),
            Value::Bool(_) => "bool".into(),
            Value::Number(number) if is_integer_name(wanted) => format!("number {number}"),
            Value::Number(_) => "number".into(),
            Value::String(_) => "string".into(),
            Value::Array(_) => "array".into(),
            Value::Object(_) => "object".into(),
        };
        Error::Type(TypeError {
            found,
            wanted: wanted.into(),
            owner: "",
            path: Vec::new(),
        })
    }

    /// The whole number here, if it lies in `min..=max`.
    fn integer(&self, min: i128, max: i128, wanted: &'static str) -> Result<i128, Error> {
        let number = match &self.0 {
            Value::Null => 0,
            Value::Number(number) => whole(number).ok_or_else(|| self.mismatch(wanted))?,
            _ => return Err(self.mismatch(wanted)),
        };
        if (min..=max).contains(&number) {
            Ok(number)
        } else {
            Err(self.mismatch(wanted))
        }
    }

    fn object(self, wanted: &str) -> Result<Map<String, Value>, Error> {
        match self.0 {
            Value::Object(object) => Ok(object),
            Value::Null => Ok(Map::new()),
            _ => Err(self.mismatch(wanted)),
        }
    }

    /// The items of what becomes a `T`.
    fn array<T>(self) -> Result<Vec<Value>, Error> {
        match self.0 {
            Value::Array(items) => Ok(items),
            Value::Null => Ok(Vec::new()),
            _ => Err(self.mismatch(&go_name(type_name::<T>()))),
        }
    }
}

fn is_integer_name(go_type: &str) -> bool {
    go_type.starts_with("int") || go_type.starts_with("uint")
}

/// A JSON number without a fraction. Floats are exact integers below 2^53 and the sender's rounding above.
fn whole(number: &Number) -> Option<i128> {
    if let Some(signed) = number.as_i64() {
        return Some(signed.into());
    }
    if let Some(unsigned) = number.as_u64() {
        return Some(unsigned.into());
    }
    let float = number.as_f64()?;
    #[allow(clippy::cast_possible_truncation)]
    (float.fract() == 0.0 && float.abs() < 1e20).then_some(float as i128)
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.integer(<$type>::MIN.into(), <$type>::MAX.into(), $go)?;
            visitor.$visit(<$type>::try_from(number).map_err(Error::custom)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(object) => visitor.visit_map(Entries::of(object, "")),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(unsigned), _) => visitor.visit_u64(unsigned),
                (None, Some(signed)) => visitor.visit_i64(signed),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int64";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint";
        deserialize_u64 visit_u64 u64, "uint64";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::Null => visitor.visit_bool(false),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0 {
            Value::Number(number) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            Value::Null => visitor.visit_f64(0.0),
            _ => Err(self.mismatch("float64")),
        }
    }
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Null => visitor.visit_str(""),
            _ => Err(self.mismatch("string")),
        }
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items(self.array::<V::Value>()?.into_iter()))
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let mut items = self.array::<V::Value>()?;
        items.resize(len, Value::Null);
        visitor.visit_seq(Items(items.into_iter()))
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let wanted = go_name(type_name::<V::Value>());
        visitor.visit_map(Entries::of(self.object(&wanted)?, ""))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let object = match self.0 {
            Value::Object(object) => canonical(object, fields),
            _ => self.object(&go_name(name))?,
        };
        visitor.visit_map(Entries::of(object, name))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0
            .into_deserializer()
            .deserialize_enum(name, variants, visitor)
            .map_err(Error::custom)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { i128 u128 bytes byte_buf unit unit_struct }
}

/// The known fields under their own names, later spellings over earlier ones. A `null` says nothing about a field, and
/// what is not known is left out.
fn canonical(object: Map<String, Value>, fields: &'static [&'static str]) -> Map<String, Value> {
    let mut known = Map::new();
    for (key, value) in object {
        let name = fields
            .iter()
            .find(|field| **field == key)
            .or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(&key)));
        if let Some(name) = name
            && !value.is_null()
        {
            known.insert((*name).to_owned(), value);
        }
    }
    known
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .next()
            .map(|item| seed.deserialize(Lenient(item)))
            .transpose()
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Entries {
    entries: serde_json::map::IntoIter,
    /// Name of the struct the entries are fields of; empty for a map.
    owner: &'static str,
    current: Option<(String, Value)>,
}

impl Entries {
    fn of(object: Map<String, Value>, owner: &'static str) -> Self {
        Self {
            entries: object.into_iter(),
            owner,
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.current = self.entries.next();
        let Some((key, _)) = &self.current else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = self
            .current
            .take()
            .ok_or_else(|| Error::custom("a value was asked for before its key"))?;
        seed.deserialize(Lenient(value)).map_err(|mut error| {
            if let Error::Type(mismatch) = &mut error
                && !self.owner.is_empty()
            {
                mismatch.path.push(key);
                if mismatch.owner.is_empty() {
                    mismatch.owner = self.owner;
                }
            }
            error
        })
    }
}
