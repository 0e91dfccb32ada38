//! What must go on when something around delivery is wrong.

use super::*;

#[tokio::test(start_paused = true)]
async fn connection_made_by_earlier_settings_is_not_used_by_later_ones() {
    let house = House::new(|_| {});
    let peer = house.peer("x.test", 10, "192.0.2.1", Script::honest());
    house.accept("a@src.test", &["b@x.test"]).await;
    while peer.mail().is_empty() {
        house.clock.sleep(Duration::from_millis(1)).await;
    }
    // The worker has the connection still in its hands, in case more mail comes.
    let mut settings = Settings::clone(&house.deliver.0.settings.load());
    settings.host = domain("new.home.test");
    house.deliver.reconfigure(settings);
    house.clock.sleep(Duration::from_secs(1)).await;
    house.accept("a@src.test", &["b@x.test"]).await;
    house.until_empty().await;
    assert_eq!((peer.sessions(), peer.mail().len()), (2, 2));
    assert!(peer.saw("EHLO new.home.test"));
}
