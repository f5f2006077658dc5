"""What the templates promise: one story for each rule of running well in Kubernetes."""

import json
import math
import re
import unittest

import chart
import helm_python
from chart import Release
from report import validated


def tearDownModule():
    validated("template unit tests", chart.HELM)


class Shutdown(unittest.TestCase):
    def test_the_grace_period_is_prestop_and_drain_and_margin(self):
        pod = Release(shutdown={"preStopSeconds": 7, "marginSeconds": 11},
                      server={"drainSeconds": 130}).pod["spec"]
        self.assertEqual(pod["terminationGracePeriodSeconds"], 7 + 130 + 11)
        self.assertIn("--drain_seconds=130", pod["containers"][0]["args"])
        self.assertEqual(pod["containers"][0]["lifecycle"]["preStop"], {"sleep": {"seconds": 7}})

    def test_no_prestop_of_zero_seconds(self):
        self.assertNotIn("lifecycle", Release(shutdown={"preStopSeconds": 0}).container)


class Probes(unittest.TestCase):
    def test_all_three_ask_the_health_port(self):
        release = Release()
        self.assertEqual(release.config["health"]["address"], "0.0.0.0:8501")
        services = {}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            grpc = release.container[probe]["grpc"]
            self.assertEqual(grpc["port"], 8501)
            services[probe] = grpc["service"]
        self.assertEqual(services, {"startupProbe": "readiness", "readinessProbe": "readiness",
                                    "livenessProbe": "liveness"})

    def test_a_slow_model_has_its_whole_time_to_load(self):
        release = Release(probes={"startupSeconds": 601, "periodSeconds": 10})
        startup = release.container["startupProbe"]
        self.assertEqual(startup["failureThreshold"], math.ceil(601 / 10))
        self.assertGreater(release.find("Deployment")["spec"]["progressDeadlineSeconds"], 601)

    def test_plaintext_probes_stay_with_tls(self):
        container = Release(tls={"secretName": "pair"}).container
        self.assertEqual(container["livenessProbe"]["grpc"]["port"], 8501)


class Security(unittest.TestCase):
    def test_containers_can_do_nothing_but_serve(self):
        downloads = {"model": {"pvc": {"claimName": ""}, "download": {
            "url": "https://models.example.com/m.tar", "sha256": "0" * 64}}}
        release = Release(**downloads)
        pods = [release.pod["spec"], release.find("Pod", "catserve-test")["spec"]]
        for pod in pods:
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        containers = [c for p in pods for c in p["containers"] + p.get("initContainers", [])]
        self.assertEqual(len(containers), 3)
        for container in containers:
            context = container["securityContext"]
            self.assertTrue(context["readOnlyRootFilesystem"])
            self.assertIs(context["allowPrivilegeEscalation"], False)
            self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
            self.assertEqual(container["resources"]["requests"]["memory"],
                             container["resources"]["limits"]["memory"])
        self.assertIs(release.find("ServiceAccount")["automountServiceAccountToken"], False)

    def test_who_may_reach_the_pods(self):
        policy = Release().find("NetworkPolicy")["spec"]
        self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
        self.assertEqual(policy["egress"], [])
        self.assertEqual([rule["ports"] for rule in policy["ingress"]],
                         [[{"port": "grpc"}], [{"port": "metrics"}]])
        self.assertTrue(all(rule["from"] for rule in policy["ingress"]), "an empty list: all")

    def test_helm_test_may_always_call(self):
        peers = [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]
        release = Release(networkPolicy={"clients": peers})
        allowed = release.find("NetworkPolicy")["spec"]["ingress"][0]["from"]
        self.assertEqual(allowed[:1], peers)
        self.assertLessEqual(
            allowed[1]["podSelector"]["matchLabels"].items(),
            release.find("Pod", "catserve-test")["metadata"]["labels"].items())
        quiet = Release(networkPolicy={"clients": peers}, tests={"enabled": False})
        self.assertEqual(quiet.find("NetworkPolicy")["spec"]["ingress"][0]["from"], peers)

    def test_tls_and_tokens_come_from_secrets_as_folders(self):
        release = Release(tls={"secretName": "pair"}, tokens={"secretName": "callers"},
                          tests={"tokenSecretName": "one"})
        self.assertEqual(release.config["tls"], {"certificate_file": "/etc/catserve-tls/tls.crt",
                                                 "key_file": "/etc/catserve-tls/tls.key"})
        self.assertEqual(release.config["access"],
                         {"tokens_file": "/etc/catserve-tokens/tokens.yaml"})
        self.assertNotIn("plaintext_allowed", release.config)
        mounts = {m["mountPath"]: m for m in release.container["volumeMounts"]}
        for path in ("/etc/catserve-tls", "/etc/catserve-tokens"):
            self.assertNotIn("subPath", mounts[path], "a subPath never sees a rotated Secret")
        test = release.find("Pod", "catserve-test")["spec"]
        self.assertIn("--tls_ca=/tls/ca.crt", test["containers"][0]["args"])
        self.assertEqual([i["key"] for i in test["volumes"][0]["secret"]["items"]], ["ca.crt"])
        token = test["containers"][0]["env"][0]
        self.assertEqual(token["valueFrom"]["secretKeyRef"], {"name": "one", "key": "token"})

    def test_mutual_tls(self):
        release = Release(tls={"secretName": "pair", "mutual": True}, tests={"enabled": False})
        self.assertEqual(release.config["tls"]["client_ca_file"], "/etc/catserve-tls/ca.crt")

    def test_plaintext_is_said(self):
        self.assertIs(Release().config["plaintext_allowed"], True)


class Services(unittest.TestCase):
    def test_clients_can_balance_by_dns(self):
        service = Release().find("Service", "catserve-headless")["spec"]
        self.assertEqual(service["clusterIP"], "None")
        self.assertEqual(service["ports"][0]["appProtocol"], "kubernetes.io/h2c")

    def test_tls_is_no_h2c(self):
        service = Release(tls={"secretName": "pair"}).find("Service")["spec"]
        self.assertEqual(service["ports"][0]["appProtocol"], "https")

    def test_the_test_pod_is_no_server(self):
        release = Release()
        selector = release.find("Service")["spec"]["selector"]
        self.assertFalse(selector.items()
                         <= release.find("Pod", "catserve-test")["metadata"]["labels"].items())
        self.assertLessEqual(selector.items(), release.pod["metadata"]["labels"].items())


class Configuration(unittest.TestCase):
    def test_a_changed_configuration_restarts_the_pods(self):
        def checksum(**values):
            return Release(**values).pod["metadata"]["annotations"]["checksum/config"]
        self.assertEqual(checksum(), checksum(replicas=5))
        self.assertNotEqual(checksum(), checksum(config={"reload_seconds": 60}))

    def test_the_file_holds_what_the_values_say(self):
        config = Release(config={"connections": {"metadata_bytes_max": 1048576}}).config
        self.assertEqual(config["connections"], {"age_grace_seconds": 600, "age_max_seconds": 300,
                                                 "metadata_bytes_max": 1048576})
        text = Release(config={"readers": {"lag_tokens_max": 1000000}}).find("ConfigMap")["data"]
        self.assertIn("lag_tokens_max: 1000000\n", text["catserve.yaml"] + "\n")

    def test_every_flag_has_a_value(self):
        source = (chart.ROOT / "server/flags.cc").read_text()
        flags = set(re.findall(r"ABSL_FLAG\(\s*[^,]+,\s*(\w+)", source))
        given = {a[2:].split("=")[0] for a in Release().container["args"]}
        self.assertEqual(flags - given, {"port_file"})
        self.assertEqual(given - flags, set(), "flags that catserved does not know")

    def test_large_numbers_stay_whole(self):
        args = Release(server={"kvMemoryBytes": 60000000000}).container["args"]
        self.assertIn("--kv_memory_bytes=60000000000", args)

    def test_fractions_stay_fractions(self):
        self.assertIn("--gpu_memory_fraction=0.9", Release().container["args"])
        args = Release(server={"gpuMemoryFraction": 0.35}).container["args"]
        self.assertIn("--gpu_memory_fraction=0.35", args)

    def test_threads_follow_the_cpu_request(self):
        for cpu, threads in (("4", 4), ("3500m", 4), (2, 2), ("0.5", 1)):
            args = Release(resources={"requests": {"cpu": cpu}}).container["args"]
            self.assertIn(f"--threads={threads}", args)
        self.assertIn("--threads=3", Release(server={"threads": 3}).container["args"])


class Model(unittest.TestCase):
    def volume(self, **model):
        release = Release(model={"pvc": {"claimName": ""}, **model})
        return {v["name"]: v for v in release.pod["spec"]["volumes"]}["model"], release

    def test_from_a_claim(self):
        release = Release(model={"path": "a/b"})
        self.assertIn("--model=/model/a/b", release.container["args"])
        mount = [m for m in release.container["volumeMounts"] if m["name"] == "model"]
        self.assertEqual(mount, [{"name": "model", "mountPath": "/model", "readOnly": True}])

    def test_from_an_image(self):
        volume, _ = self.volume(image={"reference": "models/a:1"})
        self.assertEqual(volume["image"], {"reference": "models/a:1", "pullPolicy": "IfNotPresent"})

    def test_a_download_is_checked_before_it_is_unpacked(self):
        volume, release = self.volume(download={"url": "https://h/m.tar", "sha256": "a" * 64})
        self.assertEqual(volume["emptyDir"], {"sizeLimit": "20Gi"})
        script = release.pod["spec"]["initContainers"][0]["args"][0]
        self.assertLess(script.index("sha256sum -c"), script.index("tar -xf"))
        egress = release.find("NetworkPolicy")["spec"]["egress"]
        self.assertEqual({p["port"] for p in egress[0]["ports"]}, {53, 443})


class Gpu(unittest.TestCase):
    def test_a_gpu_brings_engine_image_limit_and_runtime(self):
        release = Release(gpu={"count": 2})
        self.assertIn("--backend=cuda", release.container["args"])
        self.assertTrue(release.container["image"].endswith("-cuda"))
        self.assertEqual(release.container["resources"]["limits"]["nvidia.com/gpu"], 2)
        self.assertEqual(release.pod["spec"]["runtimeClassName"], "nvidia")

    def test_without_one_nothing_of_it(self):
        release = Release()
        self.assertIn("--backend=cpu", release.container["args"])
        self.assertNotIn("runtimeClassName", release.pod["spec"])


class Scaling(unittest.TestCase):
    def test_the_scaler_owns_the_number_of_replicas(self):
        self.assertEqual(Release().find("Deployment")["spec"]["replicas"], 2)
        for kind in ("pods", "external", "keda"):
            spec = Release(autoscaling={"kind": kind}).find("Deployment")["spec"]
            self.assertNotIn("replicas", spec)

    def test_up_at_once_down_slowly(self):
        hpa = Release(autoscaling={"kind": "pods"}).find("HorizontalPodAutoscaler")["spec"]
        self.assertEqual(hpa["behavior"]["scaleUp"]["stabilizationWindowSeconds"], 0)
        down = hpa["behavior"]["scaleDown"]
        self.assertEqual(down["stabilizationWindowSeconds"], 300)
        self.assertEqual(down["policies"], [{"type": "Pods", "value": 1, "periodSeconds": 120}])

    def test_queue_and_memory_are_what_it_looks_at(self):
        hpa = Release(autoscaling={"kind": "pods", "waitingRequests": 6}).find(
            "HorizontalPodAutoscaler")["spec"]
        self.assertEqual({m["pods"]["metric"]["name"]: m["pods"]["target"]["averageValue"]
                          for m in hpa["metrics"]},
                         {"catserve_waiting_requests": "6", "catserve_kv_usage_ratio": "800m"})

    def test_keda_asks_for_this_release_only(self):
        scaled = Release(autoscaling={"kind": "keda"}).find("ScaledObject")["spec"]
        for trigger in scaled["triggers"]:
            self.assertIn('{namespace="serving",pod=~"catserve-.*"}', trigger["metadata"]["query"])
        self.assertEqual([t["metadata"]["threshold"] for t in scaled["triggers"]], ["4", "0.8"])

    def test_replicas_are_never_drained_together(self):
        pdb = Release().find("PodDisruptionBudget")["spec"]
        self.assertEqual(pdb["maxUnavailable"], 1)
        self.assertEqual(pdb["unhealthyPodEvictionPolicy"], "AlwaysAllow")

    def test_spread_counts_the_pods_of_one_version(self):
        spread = Release(topologySpread={"zones": "off"}).pod["spec"]["topologySpreadConstraints"]
        self.assertEqual([s["topologyKey"] for s in spread], ["kubernetes.io/hostname"])
        self.assertEqual(spread[0]["matchLabelKeys"], ["pod-template-hash"])


class Monitoring(unittest.TestCase):
    def test_the_dashboard_is_the_file(self):
        release = Release(monitoring={"dashboard": True})
        data = release.find("ConfigMap", "catserve-dashboard")["data"]["catserve.json"]
        file = chart.CHART / "files/dashboard.json"
        self.assertEqual(json.loads(data), json.loads(file.read_text()))

    def test_runbooks_get_their_address(self):
        release = Release(monitoring={"rules": True, "runbookBase": "https://host/tree/main/"})
        groups = release.find("PrometheusRule")["spec"]["groups"]
        links = [r["annotations"]["runbook_url"] for g in groups for r in g["rules"]
                 if "alert" in r]
        self.assertTrue(links)
        self.assertTrue(all(link.startswith("https://host/tree/main/docs/") for link in links))

    def test_a_service_monitor_scrapes_each_pod_once(self):
        release = Release(monitoring={"scrape": "serviceMonitor"})
        wanted = release.find("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
        chosen = [o["metadata"]["name"] for o in release.objects
                  if o["kind"] == "Service" and wanted <= o["metadata"]["labels"].items()]
        self.assertEqual(chosen, ["catserve-headless"])

    def test_a_pod_monitor_finds_the_pods(self):
        release = Release(monitoring={"scrape": "podMonitor"})
        wanted = release.find("PodMonitor")["spec"]["selector"]["matchLabels"].items()
        self.assertLessEqual(wanted, release.pod["metadata"]["labels"].items())


# Values that must be refused, and what the message must name.
REFUSED = [
    ({"replica": 3}, "replica"),
    ({"image": {"name": "x"}}, "image"),
    ({"server": {"slot": 3}}, "server"),
    ({"server": {"slots": 0}}, "server/slots"),
    ({"server": {"kvDtype": "int4"}}, "server/kvDtype"),
    ({"config": {"connections": {"count_maximum": 3}}}, "config/connections"),
    ({"config": {"tls": {}}}, "config"),
    ({"config": {"readers": {"stall_seconds": 0}}}, "config/readers/stall_seconds"),
    ({"tls": {"secretName": "Not A Name"}}, "tls/secretName"),
    ({"image": {"digest": "sha256:12"}}, "image/digest"),
    ({"model": {"path": "../../etc"}}, "model/path"),
    ({"networkPolicy": {"clients": []}}, "networkPolicy/clients"),
    ({"networkPolicy": {"clients": [{}]}}, "networkPolicy/clients"),
    ({"autoscaling": {"kind": "vpa"}}, "autoscaling/kind"),
    ({"resources": {"limits": {"memory": "8 GB"}}}, "resources/limits"),
    ({"model": {"pvc": {"claimName": ""}}}, "model.pvc.claimName"),
    ({"model": {"image": {"reference": "m:1"}}}, "model.image.reference"),
    ({"model": {"pvc": {"claimName": ""}, "download": {"url": "https://h/m.tar"}}},
     "model.download.sha256"),
    ({"model": {"download": {"url": "http://h/m.tar"}}}, "model/download/url"),
    ({"tls": {"mutual": True}}, "tls.mutual"),
    ({"tls": {"secretName": "a", "mutual": True}}, "tests.enabled"),
    ({"tls": {"secretName": "a"}, "inferencePool": {"enabled": True}}, "inferencePool.enabled"),
    ({"tokens": {"secretName": "a"}}, "tests.tokenSecretName"),
    ({"strategy": {"maxSurge": 0}}, "strategy.maxSurge"),
    ({"autoscaling": {"maxReplicas": 1}}, "autoscaling.maxReplicas"),
    ({"resources": {"limits": {"nvidia.com/gpu": 1}}}, "gpu.count"),
]


class BadValues(unittest.TestCase):
    def test_each_is_refused_by_name(self):
        for values, named in REFUSED:
            with self.subTest(values=values):
                with self.assertRaises(helm_python.HelmError) as refused:
                    chart.objects(chart.merged(chart.LEAST, values))
                self.assertIn(named, str(refused.exception))
        validated(f"{len(REFUSED)} bad values refused by name", chart.HELM)

    def test_no_object_of_the_schema_takes_unknown_keys(self):
        free = []

        def walk(node, path):
            if isinstance(node, dict):
                if "properties" in node and node.get("additionalProperties") is not False:
                    free.append(path)
                for key, child in node.items():
                    walk(child, f"{path}/{key}")
        walk(loaded_schema(), "")
        self.assertEqual(free, [])


def loaded_schema():
    return json.loads((chart.CHART / "values.schema.json").read_text())


if __name__ == "__main__":
    unittest.main()
