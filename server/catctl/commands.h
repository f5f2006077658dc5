// catctl's commands. Each takes what followed its name and returns the process's exit code.
#pragma once

#include <string>
#include <vector>

#include "server/catctl/client.h"

namespace catserve {

int GenerateCommand(const Client& client, const std::vector<std::string>& words);
int ModelCommand(const Client& client, const std::vector<std::string>& words);
int LoadCommand(const Client& client, const std::vector<std::string>& words);
int TokenizeCommand(const Client& client, const std::vector<std::string>& words);
int ScoreCommand(const Client& client, const std::vector<std::string>& words);
int PlanCommand(const Client& client, const std::vector<std::string>& words);
int WaitCommand(const Client& client, const std::vector<std::string>& words);

// Asks no server.
int TokenCommand();

}  // namespace catserve
