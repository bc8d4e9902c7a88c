//! Work on several streams of the emulated device, which does it in another order each time.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;

use strath_core::config::Compute;
use strath_cuda::lanes::add_scaled;
use strath_cuda::{Gpu, Vector};
use strath_emulator::Emulator;

/// So many orders are tried.
const ORDERS: usize = 60;

const LEN: usize = 100;

/// Two streams of a device, as often as orders are tried.
fn devices() -> impl Iterator<Item = [Gpu; 2]> {
    let devices = (0..ORDERS).map_while(|_| Emulator::or_skip(Compute::F32).map(Gpu::new));
    devices.map(|gpu| [gpu.stream(0).unwrap(), gpu.stream(1).unwrap()])
}

fn filled(gpu: &Gpu, value: f32) -> Arc<Vector<f32>> {
    Arc::new(gpu.copied(&[value; LEN]).unwrap())
}

/// 1 + w, computed on another stream than w's.
fn one_more(there: &Gpu, w: &Vector<f32>) -> Vector<f32> {
    let mut g = there.copied(&[1.0; LEN]).unwrap();
    add_scaled(&mut g, w, 1.0).unwrap();
    g
}

fn is(vector: &Vector<f32>, value: f32) -> bool {
    vector.to_host().unwrap() == [value; LEN]
}

#[test]
fn what_is_lent_is_read_after_it_was_written_and_what_is_not_may_be_read_before() {
    let right = |lends: bool| {
        devices().filter(move |[here, there]| {
            let w = filled(here, 2.0);
            let read = if lends { w.lent(there).unwrap() } else { w.clone() };
            is(&one_more(there, &read), 3.0)
        })
    };
    let tried = devices().count();
    assert_eq!(right(true).count(), tried);
    assert!(tried == 0 || right(false).count() < tried, "an order that was not asked for is found out");
}

#[test]
fn memory_serves_again_only_after_whoever_had_it_lent_has_read_it() {
    let right = |lends: bool| {
        devices().filter(move |[here, there]| {
            let w = filled(here, 2.0);
            let read = if lends { w.lent(there).unwrap() } else { w.clone() };
            // What was written is there to be read in either case; whether it still is depends on who hears of the reading.
            there.follow(here).unwrap();
            let sum = one_more(there, &read);
            drop(read);
            drop(w);
            let again = filled(here, 7.0);
            is(&sum, 3.0) && is(&again, 7.0)
        })
    };
    let tried = devices().count();
    assert_eq!(right(true).count(), tried);
    assert!(tried == 0 || right(false).count() < tried, "an order that was not asked for is found out");
}

#[test]
fn streams_follow_each_other() {
    for [here, there] in devices() {
        let mut sum = filled(&here, 0.0);
        for round in 0..5 {
            let term = filled(&there, 1.0);
            here.follow(&there).unwrap();
            add_scaled(Arc::get_mut(&mut sum).unwrap(), &term, 1.0).unwrap();
            there.follow(&here).unwrap();
            drop(term);
            assert!(round < 4 || is(&sum, 5.0));
        }
    }
}

#[test]
fn what_is_fetched_is_as_it_was_when_it_was_asked_for_whatever_the_device_does_meanwhile() {
    for [here, there] in devices() {
        let mut fetches = Vec::new();
        for round in 0..20 {
            let w = filled(&there, round as f32);
            here.follow(&there).unwrap();
            let mut sum = here.copied(&[1.0; LEN]).unwrap();
            add_scaled(&mut sum, &w, 1.0).unwrap();
            there.follow(&here).unwrap();
            let fetch = sum.fetch().unwrap();
            // Of some nobody takes anything, and their memory serves again.
            if round % 3 == 0 { drop(fetch) } else { fetches.push((round, fetch)) }
        }
        // In another order than they were begun in.
        while !fetches.is_empty() {
            let (round, fetch) = fetches.swap_remove(fetches.len() / 2);
            assert_eq!(fetch.take().unwrap(), [round as f32 + 1.0; LEN]);
        }
    }
}

#[test]
#[should_panic(expected = "what is lent is only read")]
fn what_is_lent_is_not_written() {
    let Some(gpu) = Emulator::or_skip(Compute::F32).map(Gpu::new) else { panic!("what is lent is only read") };
    let w = filled(&gpu, 1.0);
    let mut lent = w.lent(&gpu.stream(1).unwrap()).unwrap();
    let _ = Arc::get_mut(&mut lent).unwrap().clear();
}
