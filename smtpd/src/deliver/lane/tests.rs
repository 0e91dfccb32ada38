//! Lanes by themselves, and several at one site.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_common::address::Domain;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::outcome::Stage;

use super::super::site::Sites;
use super::*;

const NOW: Duration = Duration::from_secs(100);

fn lane() -> Arc<Lane> {
    Arc::new(Lane::new(RouteName::from_text("mx:x.test")))
}

fn is_start(turn: &Turn) -> bool {
    matches!(turn, Turn::Start(_))
}

fn is_done(turn: &Turn) -> bool {
    matches!(turn, Turn::Done)
}

fn is_starve(turn: &Turn) -> bool {
    matches!(turn, Turn::Starve)
}

/// Tells all that may look again; returns them.
fn tell(sites: &Sites) -> Vec<Arc<Lane>> {
    sites.take_woken().into_iter().map(|woken| woken.tell()).collect()
}

fn failure() -> Outcome {
    let status = EnhancedCode::transient(4, 1);
    Outcome::local(Timestamp::from_millis(0), Stage::Connect, status, "connection refused")
}

#[test]
fn one_worker_makes_contact_before_others_join() {
    let lane = lane();
    assert!(is_done(&lane.take_turn(NOW, (20, 20), true)), "nothing is due");
    lane.name_due();
    assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
    assert!(is_done(&lane.take_turn(NOW, (20, 20), true)), "no contact yet");
    lane.on_contact();
    assert!(is_start(&lane.take_turn(NOW, (2, 2), true)));
    assert!(is_done(&lane.take_turn(NOW, (2, 2), true)), "limit of the route");
    assert!(is_starve(&lane.take_turn(NOW, (20, 20), false)), "limit of all");
    assert!(is_done(&lane.take_turn(NOW, (20, 20), false)), "it waits once only");
    lane.end_starving();
    assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
}

#[test]
fn workers_are_as_many_as_the_destination_has_earned() {
    let lane = lane();
    lane.name_due();
    let start_all = || (0..100).take_while(|_| is_start(&lane.take_turn(NOW, (20, 20), true)));
    assert_eq!(start_all().count(), 1);
    lane.on_contact();
    assert_eq!(start_all().count(), 4);
    (0..100).for_each(|_| lane.on_progress(None, (20, 20), NOW));
    assert_eq!(start_all().count(), 15, "the limit holds");
    lane.on_slowed(None, failure(), NOW, 0);
    assert!(lane.trouble().is_some());
    let later = NOW + Duration::from_hours(48);
    assert!(
        matches!(lane.next(later, true, false), Next::Lease { max: 1, .. }),
        "one message asks"
    );
    lane.on_progress(None, (20, 20), later);
    assert!(lane.trouble().is_none());
}

#[test]
fn lanes_of_a_site_stand_in_line_and_one_asks_how_it_fares() {
    let sites = Sites::default();
    let site = sites.find(&[]);
    let lanes = [lane(), lane()];
    for lane in &lanes {
        lane.name_due();
        lane.join(&site);
    }
    let all: Vec<_> = (0..2).map(|_| site.enter(None, 2, NOW).unwrap()).collect();
    assert!(is_done(&lanes[0].take_turn(NOW, (2, 2), true)), "the site is full");
    assert!(lanes[0].waits_until().unwrap() > NOW);
    drop(all);
    assert_eq!(tell(&sites).len(), 1);
    assert!(is_start(&lanes[0].take_turn(NOW, (2, 2), true)));
    lanes[0].on_unreachable(Some(&site), failure(), NOW, &Schedule::outbound(), 0);
    assert!(is_done(&lanes[1].take_turn(NOW, (2, 2), true)), "the site is left alone");
    let later = lanes[1].waits_until().unwrap();
    assert_eq!(later, NOW + Duration::from_mins(1));
    assert!(lanes[1].trouble().is_some(), "though it has not asked itself");
    let probe = site.enter(None, 2, later).unwrap();
    assert!(is_done(&lanes[1].take_turn(later, (2, 2), true)), "another asks");
    site.on_contact();
    assert_eq!(tell(&sites).len(), 1, "all hear of it");
    drop(probe);
    assert!(is_start(&lanes[1].take_turn(later, (2, 2), true)));
    assert!(lanes[1].trouble().is_none());
}

#[test]
fn of_all_lanes_of_a_site_that_has_rested_one_starts() {
    let sites = Sites::default();
    let site = sites.find(&[]);
    let lanes: Vec<_> = (0..9).map(|_| lane()).collect();
    for lane in &lanes {
        lane.name_due();
        lane.join(&site);
    }
    site.on_unreachable(failure(), NOW, &Schedule::outbound(), 0);
    let later = site.look(Health::not_before);
    let turn = |lane: &Arc<Lane>| lane.take_turn(later, (20, 20), true);
    let turns: Vec<Turn> = lanes.iter().map(turn).collect();
    assert_eq!(turns.iter().filter(|turn| is_start(turn)).count(), 1);
    // It answers: as many start as have room, before any of them has a connection.
    site.on_contact();
    let woken = tell(&sites);
    let more: Vec<Turn> = woken.iter().map(turn).collect();
    assert_eq!(more.iter().filter(|turn| is_start(turn)).count(), 4, "five to begin with");
    // One of them finds no mail: the next one in line has its place.
    let mut more = more;
    more.retain(is_start);
    more.pop();
    let woken = tell(&sites);
    assert_eq!(woken.len(), 1);
    assert!(is_start(&turn(&woken[0])));
    drop((turns, more));
}

#[test]
fn lane_that_makes_way_stands_in_line_though_others_of_its_workers_go_on() {
    let sites = Sites::default();
    let site = sites.find(&[]);
    let [busy, other] = [lane(), lane()];
    for lane in [&busy, &other] {
        lane.name_due();
        lane.join(&site);
    }
    let turn = |lane: &Arc<Lane>| lane.take_turn(NOW, (2, 2), true);
    let first = turn(&busy);
    busy.on_contact();
    let second = turn(&busy);
    assert!(is_start(&first) && is_start(&second));
    assert!(is_done(&turn(&other)), "it waits");
    assert!(busy.is_site_wanted() && matches!(busy.next(NOW, false, false), Next::End));
    busy.stand_back(NOW);
    drop(second);
    let woken = tell(&sites);
    assert!(woken.len() == 1 && Arc::ptr_eq(&woken[0], &other));
    let others = turn(&other);
    assert!(is_start(&others));
    assert!(is_done(&turn(&busy)) && !busy.is_site_wanted(), "nobody else waits");
    drop(others);
    let woken = tell(&sites);
    assert!(woken.len() == 1 && Arc::ptr_eq(&woken[0], &busy));
    assert!(is_start(&turn(&busy)), "beside the worker that goes on");
    drop(first);
}

#[test]
fn order_to_try_at_once_outlives_an_attempt_that_fails() {
    let lane = lane();
    lane.name_due();
    assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
    lane.forgive();
    for rests in [false, true] {
        lane.name_due();
        lane.on_unreachable(None, failure(), NOW, &Schedule::outbound(), 0);
        assert_eq!(lane.waits_until(), None, "somebody works");
        assert_eq!(matches!(lane.next(NOW, true, true), Next::Lease { max: 1, .. }), !rests);
    }
}

#[test]
fn half_of_the_workers_carry_large_mail_at_most() {
    let lane = lane();
    lane.name_due();
    assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
    lane.on_contact();
    let loads: Vec<HeavyLoad> = (0..9).map_while(|_| lane.begin_heavy(None, NOW)).collect();
    assert_eq!(loads.len(), 2, "two of five");
    assert!(matches!(lane.next(NOW, true, false), Next::Lease { may_be_large: false, .. }));
    lane.leave_heavy(NOW);
    assert!(matches!(lane.next(NOW, true, true), Next::End), "there is nothing to look for");
    assert!(is_done(&lane.take_turn(NOW, (20, 20), true)) && lane.has_had_its_turn(NOW));
    drop(loads);
    assert!(is_start(&lane.take_turn(NOW, (20, 20), true)), "others are done with theirs");
    assert!(matches!(lane.next(NOW, true, false), Next::Lease { may_be_large: true, .. }));
    lane.leave_heavy(NOW);
    assert!(matches!(lane.next(NOW, true, false), Next::Lease { .. }), "it ended meanwhile");
}

/// Lanes of one site that have mail, each with a worker where there is room for it.
fn started(sites: &Sites, count: usize, connections: usize) -> (Vec<Arc<Lane>>, Vec<Turn>) {
    let site = sites.find(&[]);
    let lanes: Vec<_> = (0..count).map(|_| lane()).collect();
    for lane in &lanes {
        lane.name_due();
        lane.join(&site);
    }
    let turn = |lane: &Arc<Lane>| lane.take_turn(NOW, (connections, connections), true);
    let turns = lanes.iter().map(turn).collect();
    (lanes, turns)
}

#[test]
fn half_of_a_site_s_connections_carry_large_mail_at_most_whatever_lanes_it_is_on() {
    let sites = Sites::default();
    let (lanes, mut turns) = started(&sites, 4, 4);
    assert!(turns.iter().all(is_start));
    let mut loads: Vec<_> = lanes.iter().map(|lane| lane.begin_heavy(None, NOW)).collect();
    assert_eq!(loads.iter().flatten().count(), 2, "two of four");
    for lane in &lanes[2..] {
        assert!(matches!(lane.next(NOW, true, false), Next::Lease { may_be_large: false, .. }));
        assert!(matches!(lane.next(NOW, true, true), Next::End), "there is nothing to look for");
        assert!(!lane.is_forgettable(NOW) && !lane.has_had_its_turn(NOW), "it waits");
    }
    turns.truncate(2);
    assert!(sites.take_woken().is_empty());
    loads[0] = None;
    let woken = tell(&sites);
    assert!(woken.len() == 1 && Arc::ptr_eq(&woken[0], &lanes[2]), "one after the other");
    assert!(lanes[3].begin_heavy(None, NOW).is_none(), "nobody takes its turn away");
    assert!(is_start(&woken[0].take_turn(NOW, (4, 4), true)));
    let Next::Lease { may_be_large: true, turn, .. } = woken[0].next(NOW, true, false) else {
        panic!("it is its turn");
    };
    assert!(turn.is_some());
    loads[2] = woken[0].begin_heavy(turn, NOW);
    assert!(loads[2].is_some() && sites.take_woken().is_empty());
    // Whoever has no use for its turn lets the next one go.
    loads[1] = None;
    let woken = tell(&sites);
    assert!(Arc::ptr_eq(&woken[0], &lanes[3]));
    assert!(is_start(&woken[0].take_turn(NOW, (4, 4), true)));
    lanes[0].name_due();
    let other = lanes[0].begin_heavy(None, NOW);
    assert!(other.is_none());
    drop(woken[0].next(NOW, true, false));
    let woken = tell(&sites);
    assert!(Arc::ptr_eq(&woken[0], &lanes[0]));
    // So does one that may not go now.
    woken[0].pass_turn();
    assert!(lanes[1].begin_heavy(None, NOW).is_some());
}

#[test]
fn limit_that_grows_is_told_to_whoever_waits() {
    let sites = Sites::default();
    let (lanes, mut turns) = started(&sites, 9, 20);
    let site = sites.find(&[]);
    let starts = |turns: &[Turn]| turns.iter().filter(|turn| is_start(turn)).count();
    assert_eq!(starts(&turns), 5, "five to begin with");
    assert!(tell(&sites).is_empty());
    lanes[0].on_progress(Some(&site), (7, 7), NOW);
    let woken = tell(&sites);
    assert_eq!(woken.len(), 2, "seven by now, of those that may be");
    turns.extend(woken.iter().map(|lane| lane.take_turn(NOW, (7, 7), true)));
    assert_eq!(starts(&turns), 7);
    lanes[0].on_progress(Some(&site), (7, 7), NOW);
    assert!(tell(&sites).is_empty(), "there are no more");
    // The configuration allows more, and those that wait need not look by themselves.
    sites.look_again();
    let woken = tell(&sites);
    assert_eq!(woken.len(), 2);
    turns.extend(woken.iter().map(|lane| lane.take_turn(NOW, (20, 20), true)));
    assert_eq!(starts(&turns), 7, "they are not earned yet");
    lanes[0].on_progress(Some(&site), (20, 20), NOW);
    let woken = tell(&sites);
    turns.extend(woken.iter().map(|lane| lane.take_turn(NOW, (20, 20), true)));
    assert_eq!(starts(&turns), 9);
}

#[test]
fn large_mail_is_counted_where_it_goes() {
    let sites = Sites::default();
    let site = sites.find(&[]);
    let lanes: Vec<_> = (0..3).map(|_| lane()).collect();
    for lane in &lanes {
        lane.name_due();
        assert!(is_start(&lane.take_turn(NOW, (4, 4), true)));
    }
    // Where they go is not known yet.
    let mut loads: Vec<_> = lanes.iter().map(|it| it.begin_heavy(None, NOW).unwrap()).collect();
    let may = |(lane, load): (&Arc<Lane>, &mut HeavyLoad)| {
        lane.join(&site);
        load.move_to(&site, NOW) && load.move_to(&site, NOW)
    };
    let went: Vec<bool> = lanes.iter().zip(&mut loads).map(may).collect();
    assert_eq!(went, [true, true, false]);
    drop(loads);
    assert!(site.has_heavy_room(2, NOW), "all of it is over");
}

#[test]
fn lane_that_is_gone_or_went_elsewhere_keeps_nobody_waiting() {
    let sites = Sites::default();
    let site = sites.find(&[]);
    let elsewhere = sites.find(&[Domain::parse("mx.own.test").unwrap()]);
    for way in ["gone", "elsewhere", "elsewhere when woken", "elsewhere when told"] {
        let mut all: Vec<_> = (0..2).map(|_| site.enter(None, 2, NOW).unwrap()).collect();
        let [first, second] = [lane(), lane()];
        for lane in [&first, &second] {
            lane.name_due();
            lane.join(&site);
            assert!(is_done(&lane.take_turn(NOW, (2, 2), true)), "it stands in line");
        }
        let mut first = Some(first);
        match way {
            "gone" => first = None,
            "elsewhere" => first.iter().for_each(|lane| lane.join(&elsewhere)),
            _ => {}
        }
        assert_eq!(second.is_site_wanted(), way.contains("when"), "{way}: who else waits?");
        all.pop();
        if way.ends_with("woken") {
            first.iter().for_each(|lane| lane.join(&elsewhere));
        }
        let mut woken = tell(&sites);
        if way.ends_with("told") {
            first.iter().for_each(|lane| lane.join(&elsewhere));
        }
        woken.extend(tell(&sites));
        assert!(woken.last().is_some_and(|last| Arc::ptr_eq(last, &second)), "{way}");
        assert!(is_start(&second.take_turn(NOW, (2, 2), true)), "{way}");
        drop((all, second));
        assert!(!site.is_wanted(false), "{way}");
    }
}

#[test]
fn lane_without_due_mail_stands_in_no_line() {
    let sites = Sites::default();
    let site = sites.find(&[]);
    let [idle, other] = [lane(), lane()];
    for lane in [&idle, &other] {
        lane.join(&site);
    }
    idle.stand_back(NOW);
    assert!(!other.is_site_wanted());
    idle.name_due();
    assert!(is_start(&idle.take_turn(NOW, (2, 2), true)), "nor is its mail put off");
    idle.stand_back(NOW);
    assert!(other.is_site_wanted());
}

#[test]
fn back_off_grows_by_the_schedule_and_ends_at_its_maximum() {
    let lane = lane();
    lane.name_due();
    let schedule = Schedule::outbound();
    let mut now = NOW;
    let waits = [1, 2, 3, 4, 5].map(|_| {
        lane.on_unreachable(None, failure(), now, &schedule, 0);
        lane.on_unreachable(None, failure(), now, &schedule, 0);
        assert!(is_done(&lane.take_turn(now, (20, 20), true)));
        let until = lane.waits_until().unwrap();
        until - std::mem::replace(&mut now, until)
    });
    assert_eq!(waits, [1, 5, 15, 15, 15].map(Duration::from_mins));
    assert!(lane.trouble().is_some());
    lane.forgive();
    assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
    lane.on_contact();
    assert!(lane.trouble().is_none());
}

#[test]
fn mail_behind_a_breakdown_can_grow_too_old() {
    let lane = lane();
    lane.name_due();
    assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
    lane.on_breakdown(failure(), NOW);
    assert!(lane.trouble().is_some());
    assert_eq!(lane.waits_until(), Some(NOW + Duration::from_mins(15)));
}
