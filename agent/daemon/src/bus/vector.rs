//! `org.siris.Agent1.Vector`.

use std::collections::HashMap;

use siris_api::{ErrorCode, REPLICATION_ACTION};
use zbus::message::Header;
use zbus::{Connection, fdo};

use crate::bus::Failure;
use crate::bus::options::{Options, flag, number, only, text};
use crate::bus::running::Running;
use crate::bus::vectors::Vectors;
use crate::vectors::digest::Scope;
use crate::vectors::limit::Limits;
use crate::vectors::record::Priority;
use crate::vectors::schedule::Schedule;

/// The object of one vector.
pub(super) struct VectorObject {
    vectors: Vectors,
    number: u64,
}

impl VectorObject {
    /// The object of the vector with this number.
    pub(super) fn new(vectors: Vectors, number: u64) -> Self {
        VectorObject { vectors, number }
    }

    fn shown(&self) -> fdo::Result<Running> {
        self.vectors.running(self.number).map_err(|gone| fdo::Error::UnknownObject(gone.to_string()))
    }

    async fn allowed(&self, connection: &Connection, call: &Header<'_>) -> Result<(), Failure> {
        self.vectors.authority.check(connection, call, REPLICATION_ACTION).await
    }
}

#[zbus::interface(name = "org.siris.Agent1.Vector", introspection_docs = false)]
impl VectorObject {
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.id(self.vectors.agent.device_id).to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn machine(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.machine.to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn direction(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.direction.as_str().to_owned())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn from(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.from.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn mode(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.mode().as_str().to_owned())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn source(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.ends().0.to_owned())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn target(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.ends().1.to_owned())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn tier(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.tier.as_str().to_owned())
    }

    #[zbus(property)]
    fn priority(&self) -> fdo::Result<u32> {
        Ok(self.shown()?.vector.priority.as_u32())
    }

    #[zbus(property)]
    fn limits(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.limits.to_string())
    }

    #[zbus(property)]
    fn when(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.schedule.to_string())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn next_at(&self) -> fdo::Result<u64> {
        Ok(self.shown()?.next_at(&jiff::Zoned::now()))
    }

    #[zbus(property)]
    fn state(&self) -> fdo::Result<String> {
        Ok(self.shown()?.state().to_owned())
    }

    #[zbus(property)]
    fn last_error(&self) -> fdo::Result<String> {
        Ok(self.shown()?.last_error)
    }

    #[zbus(property)]
    fn sent(&self) -> fdo::Result<u64> {
        Ok(self.shown()?.sent)
    }

    #[zbus(property)]
    fn rate(&self) -> fdo::Result<u64> {
        Ok(self.shown()?.rate)
    }

    #[zbus(property)]
    fn remaining(&self) -> fdo::Result<u64> {
        Ok(self.shown()?.remaining)
    }

    #[zbus(property)]
    fn base(&self) -> fdo::Result<String> {
        Ok(self.shown()?.base)
    }

    #[zbus(property)]
    fn proven_to(&self) -> fdo::Result<String> {
        Ok(self.shown()?.vector.proven)
    }

    #[zbus(property)]
    fn synced_at(&self) -> fdo::Result<u64> {
        Ok(self.shown()?.synced_at)
    }

    async fn sync(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        self.allowed(connection, &call).await?;
        if self.vectors.running(self.number)?.vector.paused {
            return Err(Failure::new(ErrorCode::VectorPaused, "the vector is paused: resume it"));
        }
        self.vectors.ask(self.number);
        Ok(())
    }

    #[zbus(out_args("snapshot", "paths", "differing", "amounts"))]
    async fn verify(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(String, u64, Vec<String>, HashMap<String, u64>), Failure> {
        let scope = if flag(&options, "whole")? { Scope::Whole } else { Scope::Changed };
        only(&options, &["whole"])?;
        self.allowed(connection, &call).await?;
        self.vectors.verify(self.number, scope).await
    }

    async fn turn(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &[])?;
        self.allowed(connection, &call).await?;
        self.vectors.turn(self.number).await
    }

    #[zbus(out_args("points", "seconds", "bytes"))]
    async fn lag(&self) -> Result<(u64, u64, u64), Failure> {
        self.vectors.lag(self.number).await
    }

    async fn configure(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        only(&options, &["priority", "limits", "when"])?;
        let refused = |text: String| Failure::new(ErrorCode::VectorRefused, text);
        let priority = number(&options, "priority")?.map(|number| Priority::try_from(u64::from(number))).transpose();
        let priority = priority.map_err(|error| refused(error.to_string()))?;
        let limits = text(&options, "limits")?.map(|text| text.parse::<Limits>()).transpose();
        let limits = limits.map_err(|error| refused(error.to_string()))?;
        let schedule = text(&options, "when")?.map(|text| text.parse::<Schedule>()).transpose();
        let schedule = schedule.map_err(|error| refused(error.to_string()))?;
        self.allowed(connection, &call).await?;
        self.vectors.configure(self.number, priority, limits, schedule).await
    }

    async fn pause(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        self.allowed(connection, &call).await?;
        self.vectors.pause(self.number, true).await
    }

    async fn resume(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        self.allowed(connection, &call).await?;
        self.vectors.pause(self.number, false).await
    }

    async fn remove(
        &self,
        options: Options,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Failure> {
        let here_only = flag(&options, "here-only")?;
        only(&options, &["here-only"])?;
        self.allowed(connection, &call).await?;
        self.vectors.remove(self.number, here_only).await
    }
}
