//! What the README shows works.

use tailwater_pusher::Pusher;
use tailwater_sdk::testing::Harness;

#[test]
fn the_options_of_the_readme_are_all_there_are_for_a_cluster_and_are_accepted() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let config: toml::Table = example.parse().expect("TOML");
    let mut options = config["outputs"]["browsers"]["options"].clone();
    for key in ["key", "secret"] {
        // The daemon puts in the value of the variable.
        options[key] = "value".into();
    }
    let options = serde_json::to_value(options).expect("JSON");
    Harness::<Pusher>::validate(options.clone()).expect("they are accepted");
    let named = options.as_object().expect("an object");
    let schema = serde_json::to_value(tailwater_sdk::schemars::schema_for!(tailwater_pusher::Options)).expect("JSON");
    let keys = schema["properties"].as_object().expect("properties").keys();
    let unnamed: Vec<_> = keys.filter(|key| !named.contains_key(*key)).collect();
    assert_eq!(unnamed, ["host", "port", "tls"], "these go with another server");
}
