{{/*
The native sidecar, as items of `initContainers`: it starts before the model server, and restarts on
its own. Its start does not wait for the model server, which waits for it. The evaluation plane is the
first item, so that Kubernetes stops it last, and nothing waits for its start.
*/}}
{{- define "understudy-lib.sidecar" -}}
{{- if (default .Values .Values.understudy).sidecar.evaluation.ownContainer -}}
{{ include "understudy-lib.container" (dict "root" . "part" "evaluation-plane") }}
{{ include "understudy-lib.container" (dict "root" . "part" "data-plane") }}
{{- else -}}
{{ include "understudy-lib.container" (dict "root" . "part" "all") }}
{{- end }}
{{- end }}

{{/* One container, as an item of a list: (dict "root" $ "part" P), P as of `understudy serve --part`. */}}
{{- define "understudy-lib.container" -}}
{{- $own := default .root.Values .root.Values.understudy -}}
{{- $tls := dig "listen" "tls" nil $own.config -}}
{{- $control := int $own.ports.control -}}
{{- $evaluates := eq .part "evaluation-plane" -}}
{{- $name := ternary "understudy-evaluation" "understudy" $evaluates }}
- name: {{ $name }}
  image: {{ include "understudy-lib.image" .root }}
  imagePullPolicy: {{ $own.image.pullPolicy }}
  restartPolicy: Always
  command: [understudy, serve]
  args: [--config, /etc/understudy/understudy.yaml, --part, {{ .part }}]
  env:
    {{- include "understudy-lib.env" .root | nindent 4 }}
    {{- with include "understudy-lib.resourceEnv" (dict "env" $own.sidecar.env "container" $name) }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $own.sidecar.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $own.sidecar.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    {{- if not $evaluates }}
    - {name: understudy-http, containerPort: {{ int $own.ports.traffic }}, protocol: TCP}
    {{- end }}
    {{- if ne .part "data-plane" }}
    - {name: understudy-ctl, containerPort: {{ $control }}, protocol: TCP}
    {{- end }}
  {{- if $evaluates }}
  {{- with $own.sidecar.evaluation.livenessProbe }}
  livenessProbe:
    httpGet: {path: /healthz, port: {{ $control }}}
    {{- toYaml . | nindent 4 }}
  {{- end }}
  lifecycle:
    # It takes the last records of the other container, which is told to stop after this time.
    {{- include "understudy-lib.wait" (dict "root" .root "seconds" $own.sidecar.drain.delaySeconds) | nindent 4 }}
  {{- else }}
  startupProbe:
    {{- if eq .part "data-plane" }}
    tcpSocket: {port: {{ int $own.ports.traffic }}}
    {{- else }}
    httpGet: {path: /healthz, port: {{ $control }}}
    {{- end }}
    periodSeconds: 1
    timeoutSeconds: 2
    failureThreshold: {{ int $own.sidecar.startSeconds }}
  readinessProbe:
    {{- if $own.sidecar.readyPath }}
    httpGet:
      path: {{ $own.sidecar.readyPath }}
      port: {{ int $own.ports.traffic }}
      {{- if $tls }}
      scheme: HTTPS
      {{- end }}
    {{- else }}
    tcpSocket: {port: {{ int $own.ports.traffic }}}
    {{- end }}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  {{- with $own.sidecar.livenessProbe }}
  livenessProbe:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  lifecycle:
    preStop:
      exec:
        # The sidecar is in front, so it has to stop first; Kubernetes would stop it last.
        command: [python, -c, "import os, signal, time; time.sleep({{ int $own.sidecar.drain.delaySeconds }}); os.kill(1, signal.SIGTERM)"]
  {{- end }}
  resources:
    {{- toYaml (ternary $own.sidecar.evaluation.resources $own.sidecar.resources $evaluates) | nindent 4 }}
  securityContext:
    {{- /* Its own user, whatever the pod says. */}}
    {{- $user := pick $own.podSecurityContext "runAsNonRoot" "runAsUser" "runAsGroup" }}
    {{- toYaml (merge (dict) $own.containerSecurityContext $user) | nindent 4 }}
  volumeMounts:
    {{- include "understudy-lib.volumeMounts" .root | nindent 4 }}
    # Sockets and statistics, which both containers use.
    - {name: understudy-run, mountPath: /dev/shm}
{{- end }}

{{- define "understudy-lib.env" -}}
- name: UNDERSTUDY_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "understudy-lib.secretName" . }}
      key: {{ (default .Values .Values.understudy).token.key }}
- {name: UNDERSTUDY_LOG_LEVEL, value: {{ (default .Values .Values.understudy).sidecar.logLevel }}}
- {name: UNDERSTUDY_LOG_FORMAT, value: json}
{{ include "understudy-lib.plainEnv" . }}
{{- end }}

{{/*
Where a container runs, for OpenTelemetry: (dict "env" E "container" NAME), E the variables of the
user, of which one with the same name takes its place: Kubernetes refuses two. They switch nothing on.
*/}}
{{- define "understudy-lib.resourceEnv" -}}
{{- $taken := list -}}
{{- range .env }}{{ $taken = append $taken .name }}{{ end -}}
{{- if not (has "OTEL_RESOURCE_ATTRIBUTES" $taken) -}}
- name: UNDERSTUDY_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: UNDERSTUDY_POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: UNDERSTUDY_POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: UNDERSTUDY_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(UNDERSTUDY_POD_NAMESPACE),k8s.pod.name=$(UNDERSTUDY_POD_NAME),k8s.pod.uid=$(UNDERSTUDY_POD_UID),k8s.node.name=$(UNDERSTUDY_NODE_NAME),k8s.container.name={{ .container }}
{{- end }}
{{- end }}

{{/* What any of our programs needs where only /tmp can be written. */}}
{{- define "understudy-lib.plainEnv" -}}
- {name: HOME, value: /tmp}
- {name: PYTHONDONTWRITEBYTECODE, value: "1"}
- {name: OPENBLAS_NUM_THREADS, value: "1"}
{{- end }}

{{- define "understudy-lib.volumeMounts" -}}
- {name: understudy-config, mountPath: /etc/understudy, readOnly: true}
- {name: understudy-state, mountPath: /var/lib/understudy}
- {name: understudy-tmp, mountPath: /tmp}
{{- with (default .Values .Values.understudy).sidecar.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Items of `volumes`. */}}
{{- define "understudy-lib.volumes" -}}
{{- $own := default .Values .Values.understudy -}}
- name: understudy-config
  configMap: {name: {{ include "understudy-lib.fullname" . }}}
- name: understudy-state
  emptyDir: {sizeLimit: {{ $own.sidecar.state.sizeLimit }}}
- name: understudy-tmp
  emptyDir: {sizeLimit: 64Mi}
- name: understudy-run
  emptyDir: {medium: Memory, sizeLimit: {{ $own.sidecar.runSizeLimit }}}
{{- with $own.sidecar.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* `lifecycle` of the model server: it goes on until the sidecar has no requests any more. */}}
{{- define "understudy-lib.modelLifecycle" -}}
{{- $drain := (default .Values .Values.understudy).sidecar.drain -}}
{{- $seconds := add $drain.delaySeconds $drain.seconds -}}
{{- include "understudy-lib.wait" (dict "root" . "seconds" $seconds) }}
{{- end }}

{{/* `lifecycle` that waits before SIGTERM: (dict "root" $ "seconds" 5). */}}
{{- define "understudy-lib.wait" -}}
preStop:
  {{- if semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version }}
  sleep: {seconds: {{ .seconds }}}
  {{- else }}
  exec: {command: [sleep, {{ .seconds | quote }}]}
  {{- end }}
{{- end }}

{{/* Of the pod: the steps of `sidecar.drain`, and what the sidecar takes to hand over its records. */}}
{{- define "understudy-lib.terminationGracePeriodSeconds" -}}
{{- $drain := (default .Values .Values.understudy).sidecar.drain -}}
{{- add $drain.delaySeconds $drain.seconds $drain.modelSeconds 20 -}}
{{- end }}

{{/* What a pod of the restricted Pod Security Standard says of itself. */}}
{{- define "understudy-lib.podSettings" -}}
{{- $own := default .Values .Values.understudy -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml $own.podSecurityContext | nindent 2 }}
{{- with $own.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
