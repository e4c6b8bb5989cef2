//! The servers answer, are shared, and come back after a crash.

#[test]
fn postgres_answers_and_comes_back_after_a_crash_with_what_was_committed() {
    let Some(postgres) = recount_services::postgres() else { return };
    let url = postgres.fresh_database().unwrap();
    let database = url.rsplit('/').next().unwrap();
    postgres.sql(database, "CREATE TABLE stock (sku text); INSERT INTO stock VALUES ('a')").unwrap();
    postgres.crash_and_restart().unwrap();
    assert_eq!(postgres.sql(database, "SELECT sku FROM stock").unwrap().trim(), "a");
    assert!(postgres.sql(database, "SELECT nothing FROM nowhere").is_err());
}

#[test]
fn kafka_answers_and_keeps_a_topic_over_a_crash() {
    let Some(kafka) = recount_services::kafka() else { return };
    let topic = format!("t{}", std::process::id());
    let class = "org.apache.kafka.tools.TopicCommand";
    kafka.tool(class, &["--create", "--topic", &topic, "--partitions", "3"]).unwrap();
    kafka.restart(true).unwrap();
    let told = kafka.tool(class, &["--describe", "--topic", &topic]).unwrap();
    assert!(told.contains("PartitionCount: 3"), "{told}");
}
