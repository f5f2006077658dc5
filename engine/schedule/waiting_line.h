// Who waits, and in which order: fair between owners, by turn within each.
//
// Start-time fair queueing over owners (Goyal, Vin, Cheng 1996). An owner has a virtual time: the
// work of its requests that have started. Next is the first in turn of the owner whose time is
// least; when it starts, the owner's time advances by its work. Who comes back after a pause starts
// at the present time of the line: idleness is not saved up, and what others had meanwhile is not
// held against them. So before the request of an owner that had nothing lately starts at most one
// of each other owner, however many those have waiting. With one owner the order is that of turns.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <vector>

#include "engine/schedule/request_state.h"

namespace catserve {

using RequestPtr = std::shared_ptr<RequestState>;

struct ByTurn {
  bool operator()(const RequestPtr& a, const RequestPtr& b) const { return a->Before(*b); }
};
using Line = std::set<RequestPtr, ByTurn>;

// Not thread-safe.
class WaitingLine {
 public:
  // A preempted request comes back to where it stood when it first started, and is not counted
  // again.
  void Insert(const RequestPtr& request);
  // Without having started; false if it does not wait.
  bool Erase(const RequestPtr& request);
  // It leaves the line to run. REQUIRES: it waits.
  void Start(const RequestPtr& request);
  // A request that started has ended and came to `work`, not what it was counted with.
  void Settle(const RequestState& request, int64_t work);
  // Nobody waits or runs: nobody has had more than others.
  void Forget();

  bool empty() const { return size_ == 0; }
  int32_t size() const { return size_; }

  // The order in which requests start if all goes on as it is. Valid until the line changes.
  class Walk {
   public:
    RequestPtr Next();  // null at the end

   private:
    friend class WaitingLine;
    struct Cursor {  // of one owner
      int64_t time = 0;
      Line::const_iterator next, end;
    };
    struct Later {
      bool operator()(const Cursor& a, const Cursor& b) const;
    };
    std::priority_queue<Cursor, std::vector<Cursor>, Later> cursors_;
  };
  Walk InOrder() const;
  RequestPtr FirstNotPaused() const;  // null: there is none
  std::vector<RequestPtr> All() const;

 private:
  struct Owner {
    Line line;
    int64_t time = 0;  // at which its next request starts
  };
  bool Forgettable(const Owner& owner) const { return owner.line.empty() && owner.time <= now_; }

  std::map<std::string, Owner> owners_;
  int64_t now_ = 0;  // the time at which the last one started
  int32_t size_ = 0;
};

}  // namespace catserve
