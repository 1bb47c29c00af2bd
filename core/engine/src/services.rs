//! Errors of the services below, as clients are told them.

use gantry_driver_api::ErrorCode;

use crate::{EngineError, ErrorKind};

fn kind(code: ErrorCode) -> ErrorKind {
    match code {
        ErrorCode::InvalidArgument => ErrorKind::BadRequest,
        ErrorCode::NotFound => ErrorKind::NotFound,
        ErrorCode::AlreadyExists
        | ErrorCode::Conflict
        | ErrorCode::FailedPrecondition
        | ErrorCode::Aborted => ErrorKind::Conflict,
        ErrorCode::PermissionDenied => ErrorKind::Forbidden,
        ErrorCode::Unauthenticated => ErrorKind::Unauthorized,
        ErrorCode::NotImplemented => ErrorKind::NotImplemented,
        ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Panicked => {
            ErrorKind::Unavailable
        }
        ErrorCode::ResourceExhausted
        | ErrorCode::Cancelled
        | ErrorCode::DataLoss
        | ErrorCode::Internal => ErrorKind::Internal,
    }
}

impl From<gantry_driver_api::DriverError> for EngineError {
    fn from(error: gantry_driver_api::DriverError) -> Self {
        Self::new(kind(error.code), error.message)
    }
}

impl From<gantry_image::Error> for EngineError {
    fn from(error: gantry_image::Error) -> Self {
        Self::new(kind(error.code()), error.to_string())
    }
}

impl From<gantry_volume::VolumeError> for EngineError {
    fn from(error: gantry_volume::VolumeError) -> Self {
        Self::new(kind(error.code()), error.to_string())
    }
}

impl From<gantry_network::NetworkError> for EngineError {
    fn from(error: gantry_network::NetworkError) -> Self {
        use gantry_network::ErrorKind as K;
        let kind = match error.kind {
            K::Invalid => ErrorKind::BadRequest,
            K::Forbidden => ErrorKind::Forbidden,
            K::NotFound => ErrorKind::NotFound,
            K::Conflict => ErrorKind::Conflict,
            K::NotImplemented => ErrorKind::NotImplemented,
            K::Unavailable => ErrorKind::Unavailable,
            K::Internal => ErrorKind::Internal,
        };
        Self::new(kind, error.message)
    }
}

impl From<gantry_runtime::RuntimeError> for EngineError {
    fn from(error: gantry_runtime::RuntimeError) -> Self {
        use gantry_runtime::RuntimeError as R;
        let kind = match &error {
            R::Spec(_) | R::UnknownRuntime(_) => ErrorKind::BadRequest,
            R::NotRunning => ErrorKind::Conflict,
            R::Unsupported(_) => ErrorKind::NotImplemented,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
