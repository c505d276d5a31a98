// inbatch_softmax: softmax cross-entropy of queries over candidates that all of them share, without a framework.
//
// Query i has a positive of its own, p_i, and the candidates k_j as negatives, but for those of the positive's id:
//   positive_score_i = scale * q_i . p_i - positive_log_q_i
//   s_ij             = scale * q_i . k_j - candidate_log_q_j     for all j with candidate_ids_j != positive_ids_i
//   log_sum_i        = log(exp(positive_score_i) + sum_j exp(s_ij))
//   loss_i           = log_sum_i - positive_score_i
//   rank_i           = how many s_ij are greater than positive_score_i
//   mean_i           = the mean of the positive and the negatives, weighted by their softmax.
// In-batch training passes the candidates' first rows as positives too: the ids keep them from counting twice. No
// [batch, candidates] array exists anywhere.
//
// The backward pass takes the gradients a_i of log_sum_i and b_i of positive_score_i (a loss with the gradient g has a
// = g, b = -g). With w_ij the softmax:
//   queries_grad_i    = scale * (a_i mean_i + b_i p_i)
//   positives_grad_i  = scale * (a_i w_i,positive + b_i) q_i
//   candidates_grad_j = scale * sum_i a_i w_ij q_i
//   scale_grad        = sum_i q_i . (a_i mean_i + b_i p_i)
//   positive_log_q_grad_i = -(a_i w_i,positive + b_i),  candidate_log_q_grad_j = -sum_i a_i w_ij.
#pragma once

#include <cstdint>

#include "common/dtypes.h"
#include "common/parallel.h"

namespace merlin {

constexpr int kMaxSoftmaxDim = 512;

struct InbatchSoftmax {
  DType dtype;  // of queries, positives, candidates and their gradients
  int64_t batch;
  int64_t candidates;
  int64_t dim;
  const void* queries;           // [batch, dim]
  const void* positives;         // [batch, dim]
  const void* keys;              // the candidates: [candidates, dim]
  const float* scale;            // [1], 1 / temperature; on the device
  const int64_t* positive_ids;   // [batch]
  const int64_t* candidate_ids;  // [candidates]
  const float* positive_log_q;   // [batch] or null for zeros
  const float* candidate_log_q;  // [candidates] or null for zeros
  bool exact;                    // CUDA: the accuracy of float32 instead of that of TF32 (10 bits of each operand)

  // Forward: written, each [batch] but for the last.
  float* loss;
  float* log_sum;
  float* positive_score;
  int64_t* rank;  // or null
  float* mean;    // [batch, dim] or null where no gradient is wanted

  // On a CPU the forward pass also sums up what candidates_grad needs, for gradients a_i in proportion to
  // query_weights; unless null, which it must be where InbatchSoftmaxSumsCandidates is false.
  const float* query_weights;  // [batch] or null for ones
  float* candidate_sums;       // [candidates, dim]: sum_i query_weights_i w_ij q_i
  float* candidate_weights;    // [candidates] or null: sum_i query_weights_i w_ij
};

struct InbatchSoftmaxGradients {
  // Read: what the forward pass wrote, and the gradients of two of its outputs, each [batch].
  const float* log_sum;
  const float* positive_score;
  const float* mean;  // [batch, dim]
  const float* log_sum_grad;
  const float* positive_score_grad;

  // What the forward pass summed up, or null. Used where log_sum_grad is in proportion to query_weights; else the
  // scores are computed again.
  const float* candidate_sums;
  const float* candidate_weights;

  // Written. The log_q ones may be null.
  void* queries;           // [batch, dim]
  void* positives;         // [batch, dim]
  void* keys;              // [candidates, dim]
  float* scale;            // [1]
  float* positive_log_q;   // [batch]
  float* candidate_log_q;  // [candidates]
};

// Whether the weights of enough queries for all candidates fit the memory that the forward pass takes for them.
bool InbatchSoftmaxSumsCandidates(int64_t batch, int64_t candidates);

// Throws InvalidArgument if sizes are out of range.
void CheckInbatchSoftmax(const InbatchSoftmax& call);

void InbatchSoftmaxForward(const InbatchSoftmax& call, Threads& threads);
void InbatchSoftmaxBackward(const InbatchSoftmax& call, const InbatchSoftmaxGradients& grads, Threads& threads);

}  // namespace merlin
