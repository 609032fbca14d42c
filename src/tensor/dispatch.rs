//! Macros that choose code by a value of run time: by the data type, or by the device.
//!
//! A tensor's data type is a value ([`DType`](super::DType)), but a loop on the host is generic over a Rust type. `dispatch!` joins the two: inside its
//! body, the type `T` is `f32`, `f64` or `BF16`, as the data type says.
//!
//! ```text
//! dispatch!("relu", x.dtype(), T => relu::<T>(x.host()?))     // calls relu::<f32>, relu::<f64> or relu::<BF16>
//! ```

/// Evaluates `$body` with the Rust type `$T` of a data type, for the listed types. `$rest` is the arm for all others.
#[macro_export]
#[doc(hidden)]
macro_rules! dispatch_types {
    ([$($name:ident $type:ty),*] $dtype:expr, $T:ident => $body:expr $(, $other:ident => $rest:expr)?) => {
        match $dtype {
            $($crate::tensor::DType::$name => {
                type $T = $type;
                $body
            })*
            $($other => $rest,)?
        }
    };
}

/// For the types that ops compute with ([`Scalar`](crate::tensor::Scalar)). Other data types give an error that names the op.
#[macro_export]
#[doc(hidden)]
macro_rules! dispatch {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        $crate::dispatch_types!([BF16 $crate::tensor::BF16] $dtype, $T => $body, other => $crate::dispatch_float!($op, other, $T => $body))
    };
}

/// As `dispatch!`, for the types of accumulators ([`Accum`](crate::tensor::Accum)) only: f32 and f64.
#[macro_export]
#[doc(hidden)]
macro_rules! dispatch_float {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        $crate::dispatch_types!([F32 f32, F64 f64] $dtype, $T => $body,
            other => Err($crate::Error::dtype($op, "a floating-point type that one can compute in", &[other])))
    };
}

/// As `dispatch!`, for all five data types: for code that moves elements and computes nothing.
macro_rules! dispatch_any {
    ($dtype:expr, $T:ident => $body:expr) => {
        $crate::dispatch_types!([F32 f32, F64 f64, BF16 half::bf16, F16 half::f16, U32 u32] $dtype, $T => $body)
    };
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
