//! How a campaign is carried out.

use super::attack::attack;
use super::layers::layers;
use super::scenarios::{knee, narrow, steady, storm};
use super::soak::soak;
use super::stage::Stage;
use crate::plan::{Campaign, Plan, Progress, RunError, Scenario};
use crate::report::{Outcome, Report};

impl Campaign {
    /// Carries it out and reports. `progress` is called now and then, `interrupt` ends the test early but in order.
    ///
    /// # Errors
    /// [`RunError`]: only what keeps the test from starting; clients that fail are in the report.
    pub async fn run(
        &self,
        mut progress: impl FnMut(Progress),
        interrupt: impl Future<Output = ()>,
    ) -> Result<Report, RunError> {
        if self.plan.publishers > 0 && self.plan.whip.is_none() {
            return Err(RunError::Plan("publishers need a WHIP endpoint"));
        }
        if self.plan.viewers > 0 && self.plan.whep.is_none() {
            return Err(RunError::Plan("viewers need a WHEP endpoint"));
        }
        let hostile = match &self.scenario {
            Scenario::Attack(options) => Some(options),
            Scenario::Soak(options) => options.attack.as_ref(),
            _ => None,
        };
        if let Some(options) = hostile {
            options.permitted(&self.plan)?;
        }
        let interrupt = std::pin::pin!(interrupt);
        let mut stage = Stage::new(self, &mut progress, interrupt)?;
        let outcome = match self.scenario.clone() {
            Scenario::Run { garbage, returns_with } => steady(&mut stage, garbage, returns_with).await,
            Scenario::Storm { joins, calm, leave } => storm(&mut stage, joins, calm, leave).await,
            Scenario::Narrow { narrow: viewers, share, loss } => narrow(&mut stage, viewers, share, loss).await,
            Scenario::Knee { step, max_viewers, max_loss, max_p99_ms } => {
                knee(&mut stage, step, max_viewers, max_loss, max_p99_ms).await
            }
            Scenario::Layers(options) => layers(&mut stage, &options).await,
            Scenario::Soak(options) => match soak(&mut stage, &options).await {
                Ok(outcome) => outcome,
                Err(error) => return stage.given_up(error).await,
            },
            Scenario::Attack(options) => match attack(&mut stage, &options).await {
                Ok(figures) => Outcome::Attack(figures),
                Err(error) => return stage.given_up(error).await,
            },
        };
        stage.leave().await;
        let series = stage.monitor.series();
        Ok(Report::new(self, stage.fleet.figures, stage.phases, series, outcome))
    }
}

/// A steady test of a plan: [`Campaign::run`] with [`Scenario::Run`], without garbage and returns.
///
/// # Errors
/// [`RunError`]: only what keeps the test from starting; clients that fail are in the report.
pub async fn run(
    plan: &Plan,
    progress: impl FnMut(Progress),
    interrupt: impl Future<Output = ()>,
) -> Result<Report, RunError> {
    let campaign =
        Campaign { plan: plan.clone(), mix: Vec::new(), scenario: Scenario::Run { garbage: None, returns_with: None } };
    campaign.run(progress, interrupt).await
}
