//! The specification's types have the properties of the table `tests/checklists/properties.tsv`, and no others.

use std::collections::BTreeSet;

use gantry_model::container as model;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Learns the fields of a struct from what it asks its deserializer for.
struct Fields<'a>(&'a mut &'static [&'static str]);

type Nothing = serde::de::value::Error;

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Nothing;
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing::custom("not a struct"))
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        *self.0 = fields;
        Err(Nothing::custom("seen enough"))
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<'de, T: Deserialize<'de>>(name: &str) -> Vec<String> {
    let mut fields: &'static [&'static str] = &[];
    assert!(T::deserialize(Fields(&mut fields)).is_err());
    assert!(!fields.is_empty(), "{name} is not a struct");
    fields
        .iter()
        .map(|field| format!("{name}.{field}"))
        .collect()
}

#[test]
fn types_have_the_properties_of_the_table() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/checklists/properties.tsv"
    );
    let table = std::fs::read_to_string(path).unwrap();
    let listed: BTreeSet<String> = table
        .lines()
        .skip(1)
        .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
        .collect();
    let ours: BTreeSet<String> = [
        fields::<model::ContainerConfig>("Config"),
        fields::<model::HostConfig>("HostConfig"),
        fields::<model::ThrottleDevice>("ThrottleDevice"),
        fields::<model::WeightDevice>("WeightDevice"),
        fields::<model::Ulimit>("Ulimit"),
        fields::<model::DeviceMapping>("DeviceMapping"),
        fields::<model::DeviceRequest>("DeviceRequest"),
        fields::<model::Egress>("Egress"),
        fields::<model::RestartPolicy>("RestartPolicy"),
        fields::<model::LogConfig>("LogConfig"),
        fields::<model::HealthConfig>("HealthConfig"),
        fields::<model::Mount>("Mount"),
        fields::<model::BindOptions>("BindOptions"),
        fields::<model::VolumeOptions>("VolumeOptions"),
        fields::<model::DriverConfig>("DriverConfig"),
        fields::<model::ImageOptions>("ImageOptions"),
        fields::<model::TmpfsOptions>("TmpfsOptions"),
        fields::<model::PortBinding>("PortBinding"),
        fields::<model::NetworkingConfig>("NetworkingConfig"),
        fields::<model::EndpointSettings>("EndpointSettings"),
        fields::<model::EndpointIpamConfig>("EndpointIPAMConfig"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let unlisted: Vec<_> = ours.difference(&listed).collect();
    assert!(unlisted.is_empty(), "not in the table: {unlisted:?}");
    let missing: Vec<_> = listed.difference(&ours).collect();
    assert!(missing.is_empty(), "in no type: {missing:?}");
}
