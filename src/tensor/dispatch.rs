//! Macros that choose code by a value of run time: by the data type, or by the device.
//!
//! A tensor's data type is a value ([`DType`](super::DType)), but a loop on the host is generic over a Rust type. `dispatch!` joins the two: inside its
//! body, the type `T` is `f32`, `f64` or `BF16`, as the data type says.
//!
//! ```text
//! dispatch!("relu", x.dtype(), T => relu::<T>(x.host()?))     // calls relu::<f32>, relu::<f64> or relu::<BF16>
//! ```

/// Evaluates `$body` with the [`Scalar`](crate::tensor::Scalar) type `$T` of a data type. Other data types give an error that names the op.
#[macro_export]
#[doc(hidden)]
macro_rules! dispatch {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::tensor::DType::BF16 => {
                type $T = $crate::tensor::BF16;
                $body
            }
            other => $crate::dispatch_float!($op, other, $T => $body),
        }
    };
}

/// As `dispatch!`, for the types of accumulators ([`Accum`](crate::tensor::Accum)) only: f32 and f64.
#[macro_export]
#[doc(hidden)]
macro_rules! dispatch_float {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::tensor::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::tensor::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err($crate::Error::dtype($op, "a floating-point type that one can compute in", &[other])),
        }
    };
}

/// As `dispatch!`, for all five data types: for code that moves elements and computes nothing.
macro_rules! dispatch_any {
    ($dtype:expr, $T:ident => $body:expr) => {{
        use $crate::tensor::DType;
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            DType::F16 => {
                type $T = half::f16;
                $body
            }
            DType::U32 => {
                type $T = u32;
                $body
            }
        }
    }};
}
pub(crate) use dispatch_any;

/// Evaluates `$cuda` with the `$device` of `$tensor` if it is on a GPU, else `$host`. This is the only switch between devices. An op checks its
/// inputs and decides what to save outside of it, once for both devices.
macro_rules! on_device {
    ($tensor:expr, |$device:ident| $cuda:expr, $host:expr) => {{
        #[cfg(feature = "cuda")]
        let result = match $tensor.device() {
            Some($device) => $cuda,
            None => $host,
        };
        #[cfg(not(feature = "cuda"))]
        let result = $host;
        result
    }};
}
pub(crate) use on_device;
