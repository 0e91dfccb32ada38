//! Lives of a disk by the hundred, each from its seed.

use std::io;

use super::World;
use crate::disk::Fault;

/// One life of a disk: some stretches of work, each ended by a cut, a kill or a calm end.
fn live(seed: u64, errors: bool) -> World {
    let mut world = World::new(seed);
    for _ in 0..4 {
        let log = world.open();
        world.compare(&log);
        if errors {
            for _ in 0..world.random.u64(1..4) {
                let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Other];
                let kind = kinds[world.random.usize(..2)];
                world.model.plan(world.random.u64(1..150), Fault::Error(kind));
            }
        }
        world.model.plan(world.random.u64(1..700), Fault::Cut);
        let steps = world.random.u32(50..900);
        world.work(&log, steps);
        world.killed = false;
        if world.model.is_off() {
            world.cuts += 1;
            drop(log);
            world.model.power_on();
        } else if world.random.bool() {
            world.settle_down(&log);
            drop(log);
            world.model.kill();
            world.killed = true;
        } else {
            world.cuts += 1;
            world.model.cut();
            drop(log);
            world.model.power_on();
        }
        world.pending.clear();
        world.model.plan_nothing();
    }
    let log = world.open();
    world.compare(&log);
    world.settle_down(&log);
    world
}

/// Lives as many times as there are seeds; at least this many of them must meet a cut.
fn live_many(seeds: std::ops::Range<u64>, errors: bool, cuts_min: u32) {
    let (mut cuts, mut generations) = (0, 0);
    for seed in seeds.clone() {
        let world = std::panic::catch_unwind(|| live(seed, errors));
        match world {
            Ok(world) => {
                cuts += world.cuts;
                generations = generations.max(world.recycles);
            }
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("seeds {seeds:?}: {cuts} power cuts, up to {generations} uses of segments");
    assert!(cuts >= cuts_min, "only {cuts} cuts");
    assert!(generations > 10, "segments were hardly ever used again");
}

/// Many lives, in parts that a slow machine finishes in time as well.
macro_rules! lives {
    ($($name:ident: $seeds:expr, errors $errors:expr;)*) => {
        $(
            #[test]
            fn $name() {
                live_many($seeds, $errors, 200);
            }
        )*
    };
}

lives! {
    promises_survive_power_cuts_1: 0..90, errors false;
    promises_survive_power_cuts_2: 90..180, errors false;
    promises_survive_power_cuts_3: 180..270, errors false;
    promises_survive_power_cuts_4: 270..360, errors false;
    promises_survive_power_cuts_5: 360..450, errors false;
    promises_survive_errors_and_power_cuts_1: 1000..1090, errors true;
    promises_survive_errors_and_power_cuts_2: 1090..1180, errors true;
    promises_survive_errors_and_power_cuts_3: 1180..1270, errors true;
    promises_survive_errors_and_power_cuts_4: 1270..1360, errors true;
    promises_survive_errors_and_power_cuts_5: 1360..1450, errors true;
}
