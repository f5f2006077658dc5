{{/* The Pod: where it may run, its volumes, the container. */}}
{{- define "catserve.podSpec" -}}
serviceAccountName: {{ include "catserve.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "catserve.gracePeriod" . }}
securityContext:
  {{- include "catserve.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{ include "catserve.placement" . }}
{{- if .Values.model.download.url }}
initContainers:
  - {{ include "catserve.downloader" . | nindent 4 | trim }}
{{- end }}
containers:
  - {{ include "catserve.container" . | nindent 4 | trim }}
volumes:
  {{- include "catserve.volumes" . | nindent 2 }}
{{- end }}

{{- define "catserve.placement" -}}
{{- if and (gt (int .Values.gpu.count) 0) .Values.gpu.runtimeClassName }}
runtimeClassName: {{ .Values.gpu.runtimeClassName }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $spread := dict "kubernetes.io/hostname" .Values.topologySpread.hosts "topology.kubernetes.io/zone" .Values.topologySpread.zones }}
{{- if or (ne .Values.topologySpread.hosts "off") (ne .Values.topologySpread.zones "off") }}
topologySpreadConstraints:
  {{- range $key, $when := $spread }}
  {{- if ne $when "off" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        {{- include "catserve.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "catserve.container" -}}
name: catserved
image: {{ include "catserve.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  {{- include "catserve.flags" . | nindent 2 }}
ports:
  - name: grpc
    containerPort: 8500
  - name: health
    containerPort: 8501
  - name: metrics
    containerPort: 9500
startupProbe:
  {{- include "catserve.probe" (dict "service" "readiness" "probes" .Values.probes) | nindent 2 }}
  failureThreshold: {{ divf .Values.probes.startupSeconds .Values.probes.periodSeconds | ceil }}
readinessProbe:
  {{- include "catserve.probe" (dict "service" "readiness" "probes" .Values.probes) | nindent 2 }}
  failureThreshold: 2
livenessProbe:
  {{- include "catserve.probe" (dict "service" "liveness" "probes" .Values.probes) | nindent 2 }}
  failureThreshold: {{ .Values.probes.livenessFailures }}
{{- if .Values.shutdown.preStopSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.shutdown.preStopSeconds }}
{{- end }}
resources:
  {{- include "catserve.resources" . | nindent 2 }}
securityContext:
  {{- include "catserve.containerSecurity" . | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - name: config
    mountPath: /etc/catserve
    readOnly: true
  - name: model
    mountPath: /model
    readOnly: true
  {{- range $name := list "tls" "tokens" }}
  {{- if (index $.Values $name).secretName }}
  - name: {{ $name }}
    mountPath: /etc/catserve-{{ $name }}
    readOnly: true
  {{- end }}
  {{- end }}
{{- end }}

{{- define "catserve.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if gt (int .Values.gpu.count) 0 -}}
{{- $resources = merge $resources (dict "limits" (dict .Values.gpu.resource (int .Values.gpu.count))) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}

{{- define "catserve.volumes" -}}
- name: config
  configMap:
    name: {{ include "catserve.fullname" . }}
- name: model
  {{- if .Values.model.pvc.claimName }}
  persistentVolumeClaim:
    claimName: {{ .Values.model.pvc.claimName }}
    readOnly: true
  {{- else if .Values.model.image.reference }}
  image:
    {{- toYaml .Values.model.image | nindent 4 }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.model.download.sizeLimit }}
  {{- end }}
{{- range $name := list "tls" "tokens" }}
{{- with (index $.Values $name).secretName }}
- name: {{ $name }}
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end }}

{{/* Fetches the archive, starts nothing unless its checksum is right. No value enters the script. */}}
{{- define "catserve.downloader" -}}
name: download
image: {{ .Values.model.download.image }}
env:
  - name: URL
    value: {{ .Values.model.download.url | quote }}
  - name: SHA256
    value: {{ .Values.model.download.sha256 }}
command: [sh, -euc]
args:
  - |
    curl --fail --silent --show-error --location --proto '=https' --proto-redir '=https' \
      --retry 5 --output /model/.archive "$URL"
    echo "$SHA256  /model/.archive" | sha256sum -c -
    tar -xf /model/.archive -C /model
    rm /model/.archive
resources:
  requests: {cpu: 500m, memory: 256Mi, ephemeral-storage: {{ .Values.model.download.sizeLimit }}}
  limits: {memory: 256Mi}
securityContext:
  {{- include "catserve.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: model
    mountPath: /model
{{- end }}
