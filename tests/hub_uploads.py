"""The half of the Hub's protocol that creates repositories and takes files."""

import base64
import hashlib
import json
import re

OWNER = {
    "name": "someone",
    "orgs": [{"name": "us"}],
    "auth": {"accessToken": {"role": "write"}},
}
"""Whose token all tokens are."""

LARGE = (".safetensors", ".png")
"""Files that are sent by the protocol for large ones, by their SHA-256."""


def git_name(content):
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


class Uploads:
    """Answers to all but downloads; `server_state` is the server."""

    def _json(self, content, status=200):
        self._answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def _body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer_question(self, path):
        if path == "/api/whoami-v2":
            known = "Authorization" in self.headers
            return self._json(OWNER) if known else self._json({"error": "Invalid token"}, 401)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/main)?", path)
        repository = self.find(found[1] if found else path)
        if repository is None:
            return None
        return self._json({"id": found[1], "sha": repository.head, "siblings": []})

    def do_PUT(self):  # noqa: N802 - the name that http.server calls
        self.server_state.asked.append(("PUT", self.path, None))
        content = self._body()
        self.server_state.large[hashlib.sha256(content).hexdigest()] = content
        self._answer(200)

    def do_POST(self):  # noqa: N802
        state = self.server_state
        path = self.path.partition("?")[0]
        state.asked.append(("POST", path, None))
        body = self._body()
        if path == "/api/validate-yaml":
            return self._json({"warnings": [], "errors": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        found = re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path)
        if found:
            return self._where_to(json.loads(body)["objects"])
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        repository = self.find(found[1] if found else path)
        if repository is None:
            return None
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return self._json({"files": [self._how(repository, name) for name in names]})
        return self._commit(found[1], repository, list(map(json.loads, body.splitlines())))

    def _create(self, asked):
        state = self.server_state
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        url = f"{state.address}/{name}"
        if name in state.repositories:
            return self._json({"error": "You already created this model repo", "url": url}, 409)
        repository = state.repositories[name] = state.new_repository()
        if asked.get("private") or asked.get("visibility") == "private":
            repository.token = self.headers["Authorization"].removeprefix("Bearer ")
        return self._json({"url": url, "name": name, "id": name})

    def _how(self, repository, name):
        is_large = name.endswith(LARGE)
        known = repository.files.get(name)
        answer = {"path": name, "uploadMode": "lfs" if is_large else "regular"}
        if known is not None:
            answer["oid"] = hashlib.sha256(known).hexdigest() if is_large else git_name(known)
        return {**answer, "shouldIgnore": False}

    def _where_to(self, objects):
        state = self.server_state
        for one in objects:
            if one["oid"] not in state.large:
                one["actions"] = {"upload": {"href": f"{state.address}/large/{one['oid']}"}}
        return self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name, repository, lines):
        state = self.server_state
        state.before_commit(repository)
        changed = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", repository.head) != (
                repository.head
            ):
                return self._json({"error": "A commit has happened since"}, 412)
            if line["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                changed[value["path"]] = state.large[value["oid"]]
        commit = repository.commit(changed)
        state.after_commit(repository)
        if self.find(name) is None:  # the commit is made all the same
            return None
        address = f"{state.address}/{name}/commit/{commit}"
        return self._json({"commitUrl": address, "commitOid": commit, "pullRequestUrl": None})
