//! A run that failed: made small, and made again.

use std::process::ExitCode;

use quorate::sim::{PlanError, Violation, shrink, swarm::Swarm};

/// One run, as a violation says that it is to be repeated.
pub(super) fn again(swarm: &Swarm, text: &str) -> ExitCode {
    let plan = text.parse().map_err(|error: PlanError| error.to_string());
    match plan.and_then(|plan| swarm.run(&plan).map_err(|violation| violation.to_string())) {
        Ok(report) => {
            println!("{report:#?}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Makes it small, and shows it.
pub(super) fn fail(swarm: &Swarm, violation: Violation) -> ExitCode {
    println!("\n{violation}\n\nmaking it small ..");
    println!("{}", shrink(violation, |plan| swarm.run(plan).map(drop)));
    ExitCode::FAILURE
}
