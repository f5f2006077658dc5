// Products by cuBLASLt. Its library is half a gigabyte, so it is loaded when the backend starts and
// not linked: a server that computes on the CPU needs none of it.
#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend_lost.h"
#include "kernels/cuda/mat_mul_library.h"

namespace catserve::cuda {
namespace {

// What an algorithm may use beside its operands; NVIDIA's advice for Hopper.
constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;
// Products whose algorithm is remembered; beyond it all are forgotten.
constexpr size_t kPlansMax = 4096;
constexpr int kCandidates = 8;  // of algorithms for a product

// The functions of the library, by their own names.
struct Api {
  decltype(&::cublasLtCreate) Create;
  decltype(&::cublasLtDestroy) Destroy;
  decltype(&::cublasLtGetStatusString) StatusString;
  decltype(&::cublasLtMatmul) Matmul;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) GetHeuristic;
  decltype(&::cublasLtMatmulDescCreate) DescCreate;
  decltype(&::cublasLtMatmulDescDestroy) DescDestroy;
  decltype(&::cublasLtMatmulDescSetAttribute) DescSet;
  decltype(&::cublasLtMatmulPreferenceCreate) PreferenceCreate;
  decltype(&::cublasLtMatmulPreferenceDestroy) PreferenceDestroy;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) PreferenceSet;
  decltype(&::cublasLtMatrixLayoutCreate) LayoutCreate;
  decltype(&::cublasLtMatrixLayoutDestroy) LayoutDestroy;
};

absl::Status Unavailable(const std::string& why) {
  return absl::UnavailableError(absl::StrCat(
      "cuBLAS ", CUBLAS_VER_MAJOR, " cannot be loaded: ", why, "; install it (libcublas of CUDA ",
      CUBLAS_VER_MAJOR, ") where the loader looks, or name its folder in LD_LIBRARY_PATH"));
}

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// The library stays until the process ends: what it started does not survive its unloading.
absl::StatusOr<Api> LoadApi() {
  const std::string name = absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Unavailable(dlerror());
  Api api{};
  const bool complete = Find(library, "cublasLtCreate", api.Create) &&
                        Find(library, "cublasLtDestroy", api.Destroy) &&
                        Find(library, "cublasLtGetStatusString", api.StatusString) &&
                        Find(library, "cublasLtMatmul", api.Matmul) &&
                        Find(library, "cublasLtMatmulAlgoGetHeuristic", api.GetHeuristic) &&
                        Find(library, "cublasLtMatmulDescCreate", api.DescCreate) &&
                        Find(library, "cublasLtMatmulDescDestroy", api.DescDestroy) &&
                        Find(library, "cublasLtMatmulDescSetAttribute", api.DescSet) &&
                        Find(library, "cublasLtMatmulPreferenceCreate", api.PreferenceCreate) &&
                        Find(library, "cublasLtMatmulPreferenceDestroy", api.PreferenceDestroy) &&
                        Find(library, "cublasLtMatmulPreferenceSetAttribute", api.PreferenceSet) &&
                        Find(library, "cublasLtMatrixLayoutCreate", api.LayoutCreate) &&
                        Find(library, "cublasLtMatrixLayoutDestroy", api.LayoutDestroy);
  if (!complete) return Unavailable(absl::StrCat(name, " lacks a function"));
  return api;
}

cudaDataType_t TypeOf(DType type) {
  if (type == DType::kE4M3) return CUDA_R_8F_E4M3;
  if (type == DType::kBF16) return CUDA_R_16BF;
  return type == DType::kF16 ? CUDA_R_16F : CUDA_R_32F;
}

// The power of two that the address is a multiple of; the library asks for no more than 256.
uint32_t AlignmentOf(const void* address) {
  constexpr int kMostLog2 = 8;
  return uint32_t{1} << std::min(std::countr_zero(reinterpret_cast<uintptr_t>(address)), kMostLog2);
}

// All that the choice of an algorithm depends on.
auto KeyOf(const Product& p) {
  return std::tuple(p.m, p.n, p.k, p.type, p.d_type, p.lda, p.ldb, p.ldd, p.add, AlignmentOf(p.a),
                    AlignmentOf(p.b), AlignmentOf(p.d));
}

}  // namespace

class MatMulLibrary::Impl {
 public:
  Impl(Runtime& runtime, const Api& api) : runtime_(runtime), api_(api) {}

  ~Impl() {
    ForgetPlans();
    if (preference_ != nullptr) api_.PreferenceDestroy(preference_);
    if (handle_ != nullptr) api_.Destroy(handle_);
    if (workspace_ != nullptr) runtime_.Free(workspace_);
  }

  absl::Status Start() {
    const cublasStatus_t status = api_.Create(&handle_);
    if (status == CUBLAS_STATUS_ALLOC_FAILED) {
      return absl::ResourceExhaustedError("no memory is left on the GPU for cuBLAS to start");
    }
    if (status != CUBLAS_STATUS_SUCCESS) return Unavailable(api_.StatusString(status));
    absl::StatusOr<void*> workspace = runtime_.Allocate(kWorkspaceBytes);
    if (!workspace.ok()) return workspace.status();
    workspace_ = *workspace;
    Require(api_.PreferenceCreate(&preference_));
    Prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
    // Sums that are split keep F32: by default their parts may have the type of the result.
    Prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    return absl::OkStatus();
  }

  bool Multiply(const Product& product) {
    Plan& plan = PlanFor(product);
    if (!plan.possible) return false;
    SetScales(plan, product);
    const float alpha = 1.0f;
    const float beta = product.add ? 1.0f : 0.0f;
    const cublasStatus_t status =
        api_.Matmul(handle_, plan.operation, &alpha, product.a, plan.a, product.b, plan.b, &beta,
                    product.d, plan.d, product.d, plan.d, &plan.algorithm, workspace_,
                    kWorkspaceBytes, static_cast<cudaStream_t>(runtime_.stream().handle));
    // It was offered, and is refused: of E4M3 with scales for rows this is known to happen.
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return plan.possible = false;
    // A recording that is spoilt is refused where it ends, and done again without one.
    if (!runtime_.CaptureSpoilt()) Require(status);
    return true;
  }

 private:
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr;
    cublasLtMatrixLayout_t b = nullptr;
    cublasLtMatrixLayout_t d = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
    bool possible = false;
  };

  void Require(cublasStatus_t status) const {
    if (status != CUBLAS_STATUS_SUCCESS) {
      BackendLost("multiplying matrices", api_.StatusString(status));
    }
  }

  template <typename T>
  void Describe(const Plan& plan, cublasLtMatmulDescAttributes_t attribute, T value) {
    Require(api_.DescSet(plan.operation, attribute, &value, sizeof(value)));
  }

  // One scale for each output and each row: what cuBLAS offers from 12.9 on, on Hopper.
  void SetScales(const Plan& plan, const Product& p) {
    if (p.type != DType::kE4M3) return;
    constexpr cublasLtMatmulMatrixScale_t kVector = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    Describe(plan, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, kVector);
    Describe(plan, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, kVector);
    Describe(plan, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.a_scales);
    Describe(plan, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.b_scales);
  }

  template <typename T>
  void Prefer(cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    Require(api_.PreferenceSet(preference_, attribute, &value, sizeof(value)));
  }

  Plan& PlanFor(const Product& p) {
    if (plans_.size() >= kPlansMax) ForgetPlans();
    const auto [at, is_new] = plans_.try_emplace(KeyOf(p));
    if (is_new) at->second = MakePlan(p);
    return at->second;
  }

  Plan MakePlan(const Product& p) {
    Plan plan;
    // F32 means F32: no narrower type inside, whatever the environment asks for.
    const cublasComputeType_t compute =
        p.type == DType::kF32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    Require(api_.DescCreate(&plan.operation, compute, CUDA_R_32F));
    Describe(plan, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    SetScales(plan, p);
    Require(api_.LayoutCreate(&plan.a, TypeOf(p.type), p.k, p.m, p.lda));
    Require(api_.LayoutCreate(&plan.b, TypeOf(p.type), p.k, p.n, p.ldb));
    Require(api_.LayoutCreate(&plan.d, TypeOf(p.d_type), p.m, p.n, p.ldd));
    Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(p.a));
    Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(p.b));
    Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(p.d));
    Prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(p.d));
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> offered{};
    int found = 0;
    const cublasStatus_t status =
        api_.GetHeuristic(handle_, plan.operation, plan.a, plan.b, plan.d, plan.d, preference_,
                          kCandidates, offered.data(), &found);
    if (status != CUBLAS_STATUS_SUCCESS) return plan;
    const auto end = offered.begin() + found;  // the best first
    const auto first = std::find_if(offered.begin(), end, [](const auto& candidate) {
      return candidate.state == CUBLAS_STATUS_SUCCESS;
    });
    plan.possible = first != end;
    if (plan.possible) plan.algorithm = first->algo;
    return plan;
  }

  void ForgetPlans() {
    for (const auto& [key, plan] : std::exchange(plans_, {})) {
      api_.LayoutDestroy(plan.a);
      api_.LayoutDestroy(plan.b);
      api_.LayoutDestroy(plan.d);
      api_.DescDestroy(plan.operation);
    }
  }

  Runtime& runtime_;
  const Api api_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  void* workspace_ = nullptr;
  std::map<decltype(KeyOf(Product{})), Plan> plans_;
};

absl::StatusOr<std::unique_ptr<MatMulLibrary>> MatMulLibrary::Create(Runtime& runtime) {
  absl::StatusOr<Api> api = LoadApi();
  if (!api.ok()) return api.status();
  auto impl = std::make_unique<Impl>(runtime, *api);
  if (absl::Status status = impl->Start(); !status.ok()) return status;
  return std::unique_ptr<MatMulLibrary>(new MatMulLibrary(std::move(impl)));
}

MatMulLibrary::MatMulLibrary(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MatMulLibrary::~MatMulLibrary() = default;
bool MatMulLibrary::Multiply(const Product& product) { return impl_->Multiply(product); }

}  // namespace catserve::cuda
